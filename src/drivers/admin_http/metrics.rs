//! Metrics in the Prometheus text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use super::status::{ClusterStatus, Standing};
use std::fmt::Write;

/// Whether a figure only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows until the process ends. The name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of observations by upper bound; its samples are `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// A set of metrics being written.
///
/// ```
/// use ringdove::drivers::admin_http::Metrics;
/// let mut metrics = Metrics::default();
/// metrics.gauge("ringdove_clients", "Clients connected.").sample(&[("door", "resp")], 3.0);
/// let text = metrics.into_text();
/// let lines: Vec<&str> = text.lines().collect();
/// assert_eq!(lines[0], "# HELP ringdove_clients Clients connected.");
/// assert_eq!(lines[1], "# TYPE ringdove_clients gauge");
/// assert_eq!(lines[2], "ringdove_clients{door=\"resp\"} 3");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    text: String,
}

/// The samples of one metric being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Metrics {
    /// Starts a counter. Its name ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.family(name, help, Kind::Counter)
    }

    /// Starts a gauge.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, Kind::Gauge)
    }

    /// Starts a histogram, to be filled by [`Family::observations`].
    pub fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, Kind::Histogram)
    }

    fn family(&mut self, name: &'static str, help: &str, kind: Kind) -> Family<'_> {
        debug_assert!(name.starts_with("ringdove_"), "{name}");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }

    /// The text to serve.
    pub fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Writes one sample.
    pub fn sample(self, labels: &[(&str, &str)], value: f64) -> Self {
        self.line("", labels, value)
    }

    /// Writes a histogram's samples: `buckets` are upper bounds with the number of observations
    /// at or below each, `sum` and `count` are over all.
    pub fn observations(
        mut self,
        labels: &[(&str, &str)],
        buckets: &[(f64, u64)],
        sum: f64,
        count: u64,
    ) -> Self {
        for (bound, below) in buckets {
            let bound = bound.to_string();
            self = self.line("_bucket", &[labels, &[("le", &bound)]].concat(), *below as f64);
        }
        self.line("_bucket", &[labels, &[("le", "+Inf")]].concat(), count as f64)
            .line("_sum", labels, sum)
            .line("_count", labels, count as f64)
    }

    fn line(self, suffix: &str, labels: &[(&str, &str)], value: f64) -> Self {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
        self
    }
}

/// Writes what the cluster's status says about the answering node and the cluster. A node's driver
/// adds what only it knows.
pub fn describe(status: &ClusterStatus, metrics: &mut Metrics) {
    if let Some(own) = status.members.iter().find(|member| member.node == status.node) {
        metrics
            .gauge("ringdove_info", "The node and the version of its program.")
            .sample(&[("node", &own.node), ("name", &own.name), ("version", &own.version)], 1.0);
        metrics
            .gauge("ringdove_partitions", "Partitions held by this node, by role.")
            .sample(&[("role", "primary")], own.primaries.into())
            .sample(&[("role", "backup")], own.backups.into())
            .sample(&[("role", "learner")], own.learners.into());
        metrics
            .gauge("ringdove_keys", "Entries of the partitions that this node is primary of.")
            .sample(&[], own.keys as f64);
        metrics
            .gauge("ringdove_memory_bytes", "Bytes of all entries held, copies included.")
            .sample(&[], own.bytes as f64);
        metrics
            .gauge("ringdove_memory_max_bytes", "Bound on the bytes of entries; 0 is none.")
            .sample(&[], own.bytes_max as f64);
        metrics.gauge("ringdove_clients", "Clients connected.").sample(&[], own.clients.into());
        metrics
            .gauge("ringdove_uptime_seconds", "Seconds since the start of the process.")
            .sample(&[], own.uptime_s as f64);
    }
    let incarnation = format!("{:016x}", status.incarnation);
    metrics
        .gauge("ringdove_cluster_info", "The life of the cluster that this node is in.")
        .sample(&[("incarnation", &incarnation)], 1.0);
    let mut members = metrics.gauge("ringdove_members", "Members of the cluster, by standing.");
    for standing in [Standing::Up, Standing::Leaving, Standing::Suspect, Standing::Down] {
        let count = status.members.iter().filter(|member| member.status == standing).count();
        members = members.sample(&[("status", standing.as_str())], count as f64);
    }
    let mut rtt = metrics.gauge("ringdove_link_rtt_seconds", "Round-trip time of the link to a peer.");
    for member in &status.members {
        if let Some(us) = member.rtt_us {
            rtt = rtt.sample(&[("peer", &member.name)], us as f64 / 1e6);
        }
    }
    let mut lag =
        metrics.gauge("ringdove_replication_lag_records", "Records sent to a peer and not yet acknowledged.");
    for member in status.members.iter().filter(|member| member.node != status.node) {
        lag = lag.sample(&[("peer", &member.name)], member.replication_lag_records as f64);
    }
    let mut single = |name, help, value: f64| {
        metrics.gauge(name, help).sample(&[], value);
    };
    single("ringdove_table_version", "Version of the agreed table.", status.table_version as f64);
    single(
        "ringdove_has_majority",
        "Whether this node sees a majority of the voters.",
        f64::from(u8::from(status.has_majority)),
    );
    single("ringdove_migrations", "Copies being built in the cluster.", status.migrations.len() as f64);
    single(
        "ringdove_copy_left_bytes",
        "Bytes of copies still to be sent in the cluster, estimated.",
        status.copying.bytes_left as f64,
    );
    single(
        "ringdove_copy_bytes_per_second",
        "Rate at which copies are sent in the cluster.",
        status.copying.bytes_per_s as f64,
    );
    if let Some(eta_s) = status.copying.eta_s {
        single("ringdove_copy_eta_seconds", "Seconds until all copies are sent.", eta_s as f64);
    }
    single(
        "ringdove_moves_wanted",
        "Copies and primaries that are not yet where they should be.",
        status.moves_wanted.into(),
    );
    single(
        "ringdove_dead_partitions",
        "Partitions all of whose complete copies are lost.",
        status.dead_partitions.len() as f64,
    );
    single(
        "ringdove_unavailable_partitions",
        "Partitions without a live primary.",
        status.unavailable_partitions.into(),
    );
    single(
        "ringdove_under_replicated_partitions",
        "Partitions with fewer complete copies than they should have.",
        status.under_replicated_partitions.into(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut metrics = Metrics::default();
        metrics.counter("ringdove_x_total", "Odd \\ help\nhere.").sample(&[("a", "q\"b\\s\nn")], 1.5);
        assert_eq!(
            metrics.into_text(),
            "# HELP ringdove_x_total Odd \\\\ help\\nhere.\n# TYPE ringdove_x_total counter\n\
             ringdove_x_total{a=\"q\\\"b\\\\s\\nn\"} 1.5\n"
        );
    }

    #[test]
    fn histograms_are_cumulative_and_end_in_infinity() {
        let mut metrics = Metrics::default();
        metrics.histogram("ringdove_y_seconds", "Y.").observations(
            &[("op", "get")],
            &[(0.001, 2), (0.01, 5)],
            0.25,
            6,
        );
        assert_eq!(
            metrics.into_text().lines().skip(2).collect::<Vec<_>>(),
            [
                "ringdove_y_seconds_bucket{op=\"get\",le=\"0.001\"} 2",
                "ringdove_y_seconds_bucket{op=\"get\",le=\"0.01\"} 5",
                "ringdove_y_seconds_bucket{op=\"get\",le=\"+Inf\"} 6",
                "ringdove_y_seconds_sum{op=\"get\"} 0.25",
                "ringdove_y_seconds_count{op=\"get\"} 6",
            ]
        );
    }

    /// Every sample line belongs to the metric announced last, and no metric is announced twice.
    #[test]
    fn a_status_becomes_well_formed_text() {
        let mut metrics = Metrics::default();
        describe(&super::super::fake::cluster(3, 0), &mut metrics);
        let text = metrics.into_text();
        let mut announced = Vec::new();
        let mut current = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                current = rest.split_once(' ').unwrap().0;
                assert!(!announced.contains(&current), "{current} twice");
                announced.push(current);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert_eq!(rest.split_once(' ').unwrap().0, current);
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(series.split('{').next().unwrap(), current);
                value.parse::<f64>().unwrap();
            }
        }
        assert!(text.contains("ringdove_members{status=\"up\"} 3\n"));
        assert!(text.contains("ringdove_partitions{role=\"primary\"} "));
    }
}
