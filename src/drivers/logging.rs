//! Log lines on standard error.

use crate::config::{LogFormat, NodeConfig};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Sends the process's log to standard error, as the configuration says. The first call in a
/// process wins; later ones (embedded nodes, tests) change nothing.
pub fn init(config: &NodeConfig) {
    let filter = EnvFilter::try_new(&config.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A subscriber that is set already belongs to the program that embeds us.
    let _already_set = match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Plain => lines.with_ansi(false).without_time().try_init(),
    };
}
