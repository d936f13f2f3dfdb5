//! The types of single settings: each is parsed once, by the same code for a flag, an environment
//! variable and a line of the file.

use crate::engine::table::Survival;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A count of bytes: `512mb`, `2GiB`, `1.5g`, `4096`. `0` usually means "no bound".
///
/// The units are those of Redis: `k`, `m`, `g`, `t` are powers of 1,000; `kb`, `mb`, `gb`, `tb`
/// and `kib`, `mib`, `gib`, `tib` are powers of 1,024. Case doesn't matter.
///
/// ```
/// use ringdove::config::ByteSize;
/// assert_eq!("512mb".parse::<ByteSize>().unwrap().0, 512 << 20);
/// assert_eq!("1.5k".parse::<ByteSize>().unwrap().0, 1_500);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        let wrong =
            || format!("`{text}` is not a size: write a number and a unit, such as 512mb, 2GiB or 4096");
        let (number, unit) = split_unit(text);
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" => 1_000,
            "m" => 1_000_000,
            "g" => 1_000_000_000,
            "t" => 1_000_000_000_000,
            "kb" | "kib" => 1 << 10,
            "mb" | "mib" => 1 << 20,
            "gb" | "gib" => 1 << 30,
            "tb" | "tib" => 1 << 40,
            _ => return Err(wrong()),
        };
        let too_large = || format!("`{text}` is more bytes than 64 bits can count");
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(ByteSize).ok_or_else(too_large);
        }
        if factor == 1 || !is_decimal(number) {
            return Err(wrong());
        }
        let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
        if bytes >= u64::MAX as f64 { Err(too_large()) } else { Ok(ByteSize(bytes as u64)) }
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit with at most one digit after the point: `1.5 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if value.fract() < 0.05 {
            write!(f, "{value:.0} {}", UNITS[unit])
        } else {
            write!(f, "{value:.1} {}", UNITS[unit])
        }
    }
}

/// A length of time with its unit: `250ms`, `5s`, `2m`, `1h`, in whole milliseconds.
///
/// ```
/// use ringdove::config::Millis;
/// assert_eq!("1.5s".parse::<Millis>().unwrap(), Millis(1_500));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl FromStr for Millis {
    type Err = String;

    fn from_str(text: &str) -> Result<Millis, String> {
        let wrong = || {
            format!(
                "`{text}` is not a length of time: write a number and a unit, such as 250ms, 5s, 2m or 1h"
            )
        };
        let (number, unit) = split_unit(text);
        let factor = match unit {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" | "min" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return Err(wrong()),
        };
        if !is_decimal(number) {
            return Err(wrong());
        }
        let ms = number.parse::<f64>().map_err(|_| wrong())? * factor;
        // A century: beyond it arithmetic on clocks would need care for no use.
        if ms > 3.2e12 { Err(format!("`{text}` is more than a century")) } else { Ok(Millis(ms as u64)) }
    }
}

impl From<Millis> for std::time::Duration {
    fn from(span: Millis) -> Self {
        std::time::Duration::from_millis(span.0)
    }
}

/// Splits `512mb` into `512` and `mb`.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn is_decimal(number: &str) -> bool {
    number.starts_with(|c: char| c.is_ascii_digit()) && number.matches('.').count() <= 1
}

/// A host name or address with a port, not resolved yet: `db1.lan:7379`, `10.0.0.7:7379`,
/// `[::1]:7379`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// A DNS name or an IP address (IPv6 without brackets). At most 253 bytes.
    pub host: String,
    /// The port; 0 means "any free one" where listening, and is refused elsewhere.
    pub port: u16,
}

impl HostPort {
    /// Whether only this machine can mean this address: `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let text = text.trim();
        let wrong = || format!("`{text}` is not HOST:PORT, such as db1.lan:7379 or [::1]:7379");
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").ok_or_else(wrong)?,
            None => text.rsplit_once(':').ok_or_else(wrong)?,
        };
        let is_v6 = text.starts_with('[');
        let is_name =
            |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        let host_fits = if is_v6 { host.parse::<std::net::Ipv6Addr>().is_ok() } else { is_name(host) };
        if host.is_empty() || host.len() > 253 || !host_fits {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An IP address and port to listen on: `127.0.0.1:6379`, `[::]:6379`, `localhost:0`.
///
/// Names are not resolved, `localhost` excepted: which of a name's addresses to listen on would be
/// a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub std::net::SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let text = text.trim();
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        numeric.parse().map(ListenAddress).map_err(|_| {
            format!("`{text}` is not an address to listen on, such as 127.0.0.1:6379, 0.0.0.0:6379 or [::]:6379 (port 0 picks a free one)")
        })
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounded<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> FromStr for Bounded<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse::<u32>() {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Bounded(number)),
            _ => Err(format!("`{text}` is not a whole number from {MIN} to {MAX}")),
        }
    }
}

/// How many partitions a cluster has: a power of two from 1 to 16,384.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionCount(pub u16);

impl FromStr for PartitionCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse::<u16>() {
            Ok(count) if count.is_power_of_two() && count <= crate::engine::ids::PARTITION_COUNT_MAX => {
                Ok(PartitionCount(count))
            }
            _ => Err(format!("`{text}` is not a power of two from 1 to 16384")),
        }
    }
}

/// A short printable word: a node's name or zone. 1 to 64 letters, digits, `-`, `_`, `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(pub String);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Label, String> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
            return Err(format!("`{text}` is not a name: use 1 to 64 letters, digits, `-`, `_` or `.`"));
        }
        Ok(Label(text.to_owned()))
    }
}

/// A switch: `true`, `yes`, `on`, `1` or their opposites. A flag without a value means `true`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Switch, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Switch(true)),
            "false" | "no" | "off" | "0" => Ok(Switch(false)),
            _ => Err(format!("`{text}` is neither true nor false")),
        }
    }
}

/// What a primary does when `max_memory` is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Writes that need memory are refused with `OOM`.
    #[default]
    NoEviction,
    /// The least recently used of a sample goes, whatever its expiry.
    AllKeysLru,
    /// Of the keys that have an expiry, those nearest to it go; without any, as `NoEviction`.
    VolatileTtl,
}

impl Eviction {
    /// The setting's word, which is also Redis's name of the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Eviction::NoEviction => "noeviction",
            Eviction::AllKeysLru => "allkeys-lru",
            Eviction::VolatileTtl => "volatile-ttl",
        }
    }
}

impl FromStr for Eviction {
    type Err = String;

    fn from_str(text: &str) -> Result<Eviction, String> {
        [Eviction::NoEviction, Eviction::AllKeysLru, Eviction::VolatileTtl]
            .into_iter()
            .find(|policy| policy.as_str() == text.trim())
            .ok_or_else(|| format!("`{text}` is not one of noeviction, allkeys-lru, volatile-ttl"))
    }
}

impl FromStr for Survival {
    type Err = String;

    fn from_str(text: &str) -> Result<Survival, String> {
        match text.trim() {
            "auto" => Ok(Survival::Auto),
            "majority" => Ok(Survival::Majority),
            "takeover" => Ok(Survival::Takeover),
            _ => Err(format!("`{text}` is not one of auto, majority, takeover")),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, target, message and fields; colours on a terminal.
    #[default]
    Text,
    /// The same without time and colours, for journald and the like that add their own.
    Plain,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text.trim() {
            "text" => Ok(LogFormat::Text),
            "plain" => Ok(LogFormat::Plain),
            _ => Err(format!("`{text}` is not one of text, plain")),
        }
    }
}

/// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`) or directives such as
/// `info,ringdove::drivers=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFilter, String> {
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(LogFilter(text.to_owned())),
            Err(error) => {
                Err(format!("`{text}` is not a log filter such as info or info,ringdove=debug: {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: u64| assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        check("0", 0);
        check("4096", 4096);
        check("17b", 17);
        check("1k", 1_000);
        check("1kb", 1_024);
        check("512mb", 512 << 20);
        check("512MB", 512 << 20);
        check("2GiB", 2 << 30);
        check("2 GiB", 2 << 30);
        check("1.5gb", 3 << 29);
        check("3t", 3_000_000_000_000);
        check("18446744073709551615", u64::MAX);
    }

    #[test]
    fn refused_sizes_say_why() {
        for text in ["", "mb", "-1", "1x", "1.2.3mb", "1.5", "0x10", "nan", ".5mb", "1e3"] {
            let reason = text.parse::<ByteSize>().unwrap_err();
            assert!(reason.contains("is not a size"), "{text}: {reason}");
        }
        for text in ["18446744073709551616", "99999999tb", "99999999.5tb"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_binary_units() {
        let shown = |bytes: u64| ByteSize(bytes).to_string();
        assert_eq!(shown(0), "0 B");
        assert_eq!(shown(1023), "1023 B");
        assert_eq!(shown(1 << 20), "1 MiB");
        assert_eq!(shown(3 << 29), "1.5 GiB");
    }

    #[test]
    fn spans_need_a_unit() {
        assert_eq!("250ms".parse(), Ok(Millis(250)));
        assert_eq!("1.5s".parse(), Ok(Millis(1_500)));
        assert_eq!("2m".parse(), Ok(Millis(120_000)));
        assert_eq!("1h".parse(), Ok(Millis(3_600_000)));
        for text in ["5", "s", "-1s", "5 weeks", "", "1..5s"] {
            assert!(text.parse::<Millis>().unwrap_err().contains("length of time"), "{text}");
        }
        assert!("99999999999d".parse::<Millis>().is_err());
    }

    #[test]
    fn host_and_port() {
        let check = |text: &str, host: &str, port: u16| {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port));
            assert_eq!(parsed.to_string(), text);
        };
        check("db1.lan:7379", "db1.lan", 7379);
        check("10.0.0.7:1", "10.0.0.7", 1);
        check("[::1]:7379", "::1", 7379);
        for text in ["", "db1", "db1:", ":7379", "::1:7379", "[::1]", "a b:1", "db1:70000", "[x]:1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
        assert!("localhost:1".parse::<HostPort>().unwrap().is_loopback());
        assert!("127.0.0.9:1".parse::<HostPort>().unwrap().is_loopback());
        assert!(!"0.0.0.0:1".parse::<HostPort>().unwrap().is_loopback());
        assert!(!"db1.lan:1".parse::<HostPort>().unwrap().is_loopback());
    }

    #[test]
    fn counts_and_words() {
        assert_eq!("1024".parse(), Ok(PartitionCount(1024)));
        for text in ["0", "1000", "32768", "x"] {
            assert!(text.parse::<PartitionCount>().is_err(), "{text}");
        }
        assert!("9".parse::<Bounded<1, 8>>().unwrap_err().contains("from 1 to 8"));
        assert!("two words".parse::<Label>().is_err());
        assert!("".parse::<Label>().is_err());
        assert_eq!("off".parse(), Ok(Switch(false)));
        assert_eq!("allkeys-lru".parse(), Ok(Eviction::AllKeysLru));
        assert_eq!("takeover".parse(), Ok(Survival::Takeover));
        assert!("ringdove=loud".parse::<LogFilter>().is_err());
    }
}
