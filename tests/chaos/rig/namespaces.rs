//! A network namespace for each node, joined by a bridge. Needs root and `ip` (iproute2).
//!
//! A cut is a wrong link-layer address: packets leave and reach nobody, in one direction, without
//! an error to whoever sends them. That is how a network fails, and it needs no packet filter.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

/// A link-layer address that no interface has.
const NOBODY: &str = "02:de:ad:00:00:01";

/// Namespaces of one cluster. Dropped, they are gone.
pub struct Namespaces {
    name: String,
    bridge: String,
    subnet: [u8; 3],
    count: usize,
}

/// Runs `ip` with these lines as a batch.
fn batch(arguments: &[&str], lines: &str) -> Result<(), String> {
    let mut child = Command::new("ip")
        .args(arguments)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("ip: {error}"))?;
    let mut input = child.stdin.take().ok_or("ip has no input")?;
    input.write_all(lines.as_bytes()).map_err(|error| format!("ip: {error}"))?;
    drop(input);
    let output = child.wait_with_output().map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn mac(place: usize) -> String {
    format!("02:d0:7e:00:00:{:02x}", place + 1)
}

impl Namespaces {
    /// Makes `count` of them.
    ///
    /// # Errors
    /// What `ip` says; most often that we may not.
    pub fn make(count: usize) -> Result<Namespaces, String> {
        static CLUSTERS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        sweep();
        let number = CLUSTERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let pid = std::process::id();
        let [_, _, high, low] = (pid.wrapping_mul(31).wrapping_add(number)).to_be_bytes();
        let made = Namespaces {
            name: format!("dove-{pid}-{number}"),
            // Names of interfaces have at most 15 letters.
            bridge: format!("dv{:x}.{:x}", pid & 0xff_ffff, number & 0xfff),
            subnet: [10, 64 | (high & 63), low],
            count,
        };
        made.build()?;
        Ok(made)
    }

    fn build(&self) -> Result<(), String> {
        let Namespaces { bridge, subnet: [a, b, c], .. } = self;
        let mut lines = format!(
            "link add {bridge} type bridge\nlink set {bridge} up\naddr add {a}.{b}.{c}.254/24 dev {bridge}\n"
        );
        for place in 0..self.count {
            let (name, veth) = (self.namespace(place), self.veth(place));
            lines += &format!(
                "netns add {name}\nlink add {veth} type veth peer name eth0 address {} netns {name}\n\
                 link set {veth} master {bridge} up\n",
                mac(place)
            );
        }
        batch(&[], &lines)?;
        for place in 0..self.count {
            let name = self.namespace(place);
            let mut lines =
                format!("addr add {}/24 dev eth0\nlink set lo up\nlink set eth0 up\n", self.address(place));
            for other in (0..self.count).filter(|&other| other != place) {
                lines += &self.neighbour(other, &mac(other));
            }
            batch(&["-n", &name], &lines)?;
        }
        Ok(())
    }

    fn neighbour(&self, place: usize, mac: &str) -> String {
        format!("neigh replace {} lladdr {mac} dev eth0 nud permanent\n", self.address(place))
    }

    fn namespace(&self, place: usize) -> String {
        format!("{}-{place}", self.name)
    }

    fn veth(&self, place: usize) -> String {
        format!("{}.{place}", self.bridge)
    }

    /// The address of a node.
    pub fn address(&self, place: usize) -> IpAddr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, place as u8 + 1).into()
    }

    /// Lets a command run in its node's namespace.
    pub fn enter(&self, place: usize, command: &mut Command) {
        let mut wrapped = Command::new("ip");
        wrapped.args(["netns", "exec", &self.namespace(place)]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        *command = wrapped;
    }

    /// Cuts or joins directed pairs of nodes.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn set_cuts(&self, is_cut: impl Fn(usize, usize) -> bool) -> Result<(), String> {
        for from in 0..self.count {
            let mut lines = String::new();
            for to in (0..self.count).filter(|&to| to != from) {
                let real = mac(to);
                lines += &self.neighbour(to, if is_cut(from, to) { NOBODY } else { &real });
            }
            batch(&["-n", &self.namespace(from)], &lines)?;
        }
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // One by one, as what failed to be made can't be removed.
        for place in 0..self.count {
            let _gone = batch(&[], &format!("netns del {}\n", self.namespace(place)));
        }
        let _gone = batch(&[], &format!("link del {}\n", self.bridge));
    }
}

/// Removes what a harness left behind that was killed.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((pid, rest)) = name.strip_prefix("dove-").and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        let (Ok(pid), Some((number, _))) = (pid.parse::<u32>(), rest.split_once('-')) else { continue };
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            let number: u32 = number.parse().unwrap_or_default();
            let _gone = batch(&[], &format!("netns del {name}\n"));
            let _gone = batch(&[], &format!("link del dv{:x}.{:x}\n", pid & 0xff_ffff, number & 0xfff));
        }
    }
}
