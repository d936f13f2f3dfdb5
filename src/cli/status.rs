//! `ringdove status`.

use super::{Failure, Outcome, block_on, http};
use ringdove::config::{ByteSize, HostPort};
use ringdove::drivers::admin_http::{ClusterStatus, Health, MemberView};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

/// Migrations listed one by one.
const MIGRATIONS_SHOWN: usize = 12;

#[derive(clap::Args)]
pub struct StatusArgs {
    /// Any node's admin address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9379")]
    admin: HostPort,
    /// Print what /v1/cluster says, as JSON
    #[arg(long)]
    json: bool,
    /// Show it anew every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub fn run(args: StatusArgs) -> Outcome {
    block_on(async {
        let address = args.admin.to_string();
        loop {
            let shown = match http::get(&address, "/v1/cluster").await {
                Ok(body) => show(&body, args.json)?,
                Err(error) if args.watch => format!("{error}\n"),
                Err(error) => return Err(error.into()),
            };
            let mut out = std::io::stdout().lock();
            if args.watch && out.is_terminal() {
                // Home, then clear what is left of the last picture.
                write!(out, "\x1b[H\x1b[J")?;
            }
            match out.write_all(shown.as_bytes()).and_then(|()| out.flush()) {
                // Whoever read us has seen enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                written => written?,
            }
            if !args.watch {
                return Ok(ExitCode::SUCCESS);
            }
            drop(out);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

fn show(body: &[u8], json: bool) -> Result<String, Failure> {
    let unreadable = |error: serde_json::Error| Failure(format!("this node's answer can't be read: {error}"));
    if json {
        let value: serde_json::Value = serde_json::from_slice(body).map_err(unreadable)?;
        return Ok(format!("{value:#}\n"));
    }
    Ok(render(&serde_json::from_slice(body).map_err(unreadable)?))
}

/// The status as text for a terminal.
fn render(status: &ClusterStatus) -> String {
    let mut text = String::new();
    // Writing to a string doesn't fail.
    let _ = headline(status, &mut text)
        .and_then(|()| members(status, &mut text))
        .and_then(|()| replication(status, &mut text))
        .and_then(|()| migrations(status, &mut text));
    text
}

fn headline(status: &ClusterStatus, text: &mut String) -> std::fmt::Result {
    let verdict = match status.health {
        Health::Healthy => "healthy",
        Health::FewerCopies => "serving with fewer copies than configured: too few members",
        Health::Balancing => "healthy: every copy is complete, some are moving to other members",
        Health::Healing => "healing: everything is served, copies are being built",
        Health::Degraded => "degraded: some partitions are not served",
        Health::NoMajority => "no majority: this node refuses what needs one",
    };
    let leader = status.leader.as_deref().map_or("none", |leader| name(status, leader));
    writeln!(text, "{verdict}")?;
    writeln!(
        text,
        "{} partitions × {}, incarnation {:016x}, table {}, leader {leader}\n",
        status.settings.partitions,
        copies(status.copies_wanted.into()),
        status.incarnation,
        status.table_version,
    )
}

fn members(status: &ClusterStatus, text: &mut String) -> std::fmt::Result {
    let header = [
        "NAME", "STATUS", "ZONE", "PRIMARY", "BACKUP", "KEYS", "MEMORY", "OPS/S", "RTT", "LAG", "QUIC",
        "RESP",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(status.members.iter().map(|member| row(status, member)));
    let widths: Vec<usize> = (0..header.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Words to the left, numbers to the right.
            match column {
                3..=9 => write!(line, "{cell:>width$}  ")?,
                _ => write!(line, "{cell:<width$}  ")?,
            }
        }
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

fn row(status: &ClusterStatus, member: &MemberView) -> [String; 12] {
    let backups = match member.learners {
        0 => member.backups.to_string(),
        learners => format!("{}+{learners}", member.backups),
    };
    let memory = match member.bytes_max {
        0 => ByteSize(member.bytes).to_string(),
        max => format!("{} of {}", ByteSize(member.bytes), ByteSize(max)),
    };
    let rtt = match member.rtt_us {
        Some(us) => format!("{:.2} ms", us as f64 / 1_000.0),
        None if member.node == status.node => "here".to_owned(),
        None => "-".to_owned(),
    };
    let mut standing = member.status.as_str().to_owned();
    if member.weight == 0 {
        standing += ", witness";
    }
    [
        member.name.clone(),
        standing,
        member.zone.clone().unwrap_or_else(|| "-".to_owned()),
        member.primaries.to_string(),
        backups,
        member.keys.to_string(),
        memory,
        format!("{:.0}", member.ops_per_s),
        rtt,
        member.replication_lag_records.to_string(),
        member.quic.clone(),
        member.resp.clone(),
    ]
}

fn replication(status: &ClusterStatus, text: &mut String) -> std::fmt::Result {
    let wanted = copies(status.copies_wanted.into());
    match status.under_replicated_partitions {
        0 => writeln!(text, "\nreplication: every partition has {wanted} in sync")?,
        short => writeln!(text, "\nreplication: {short} partitions have fewer than {wanted} in sync")?,
    }
    if status.unavailable_partitions > 0 {
        writeln!(text, "unavailable: {} partitions have no live primary", status.unavailable_partitions)?;
    }
    if !status.dead_partitions.is_empty() {
        let ids: Vec<String> = status.dead_partitions.iter().map(u16::to_string).collect();
        writeln!(text, "dead: every complete copy is lost of {} (see ringdove accept-loss)", ids.join(", "))?;
    }
    Ok(())
}

fn migrations(status: &ClusterStatus, text: &mut String) -> std::fmt::Result {
    let rate: u64 = status.migrations.iter().map(|migration| migration.bytes_per_s).sum();
    match status.migrations.len() {
        0 => return writeln!(text, "migrations: none"),
        count => writeln!(text, "migrations: {count} under way, {}/s", ByteSize(rate))?,
    }
    let copying = &status.copying;
    if copying.bytes_left > 0 {
        let eta = copying.eta_s.map_or_else(|| "unknown".to_owned(), |eta_s| format!("{eta_s} s"));
        let (left, rate) = (ByteSize(copying.bytes_left), ByteSize(copying.bytes_per_s));
        writeln!(text, "copying: {left} left at {rate}/s, done in {eta}")?;
    }
    for migration in status.migrations.iter().take(MIGRATIONS_SHOWN) {
        writeln!(
            text,
            "  p{:<6} {} → {}  {:>3.0} %  {}/s",
            migration.partition,
            name(status, &migration.from),
            name(status, &migration.to),
            migration.percent,
            ByteSize(migration.bytes_per_s),
        )?;
    }
    match status.migrations.len().saturating_sub(MIGRATIONS_SHOWN) {
        0 => Ok(()),
        more => writeln!(text, "  and {more} more"),
    }
}

fn name<'a>(status: &'a ClusterStatus, node: &'a str) -> &'a str {
    status.member(node).map_or(node, |member| &member.name)
}

fn copies(count: u32) -> String {
    if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringdove::drivers::admin_http::{CopyingStatus, MigrationStatus, Standing};

    fn sample() -> ClusterStatus {
        let member = |node: &str, name: &str, standing| MemberView {
            node: node.to_owned(),
            name: name.to_owned(),
            status: standing,
            weight: 100,
            keys: 12,
            bytes: 3 << 20,
            ..MemberView::default()
        };
        let mut status = ClusterStatus {
            node: "a".to_owned(),
            leader: Some("a".to_owned()),
            has_majority: true,
            copies_wanted: 2,
            under_replicated_partitions: 7,
            dead_partitions: vec![77],
            unavailable_partitions: 1,
            members: vec![member("a", "dove-1", Standing::Up), member("b", "dove-2", Standing::Down)],
            migrations: vec![MigrationStatus {
                partition: 5,
                from: "a".to_owned(),
                to: "b".to_owned(),
                percent: 41.7,
                bytes_per_s: 2 << 20,
            }],
            copying: CopyingStatus { bytes_left: 10 << 20, bytes_per_s: 2 << 20, eta_s: Some(5) },
            ..ClusterStatus::default()
        };
        status.health = status.judge();
        status
    }

    #[test]
    fn all_that_matters_is_said() {
        let text = render(&sample());
        for part in [
            "degraded: some partitions are not served\n",
            "leader dove-1",
            "dove-2  down",
            "3 MiB",
            "replication: 7 partitions have fewer than 2 copies in sync\n",
            "dead: every complete copy is lost of 77 ",
            "migrations: 1 under way, 2 MiB/s\n",
            "copying: 10 MiB left at 2 MiB/s, done in 5 s\n",
            "p5      dove-1 → dove-2   42 %  2 MiB/s\n",
        ] {
            assert!(text.contains(part), "`{part}` is missing in\n{text}");
        }
    }

    #[test]
    fn columns_line_up() {
        let text = render(&sample());
        let lines: Vec<&str> = text.lines().skip(3).take(3).collect();
        let at = lines[0].find("KEYS").unwrap() + 4;
        for line in &lines[1..] {
            assert!(line[..at].ends_with("12"), "{text}");
        }
    }

    #[test]
    fn json_is_passed_through() {
        let body = serde_json::to_vec(&sample()).unwrap();
        let shown: serde_json::Value = serde_json::from_str(&show(&body, true).unwrap()).unwrap();
        assert_eq!(shown["dead_partitions"][0], 77);
        assert!(show(b"<html>", false).is_err());
    }
}
