//! Log lines on standard error.

use crate::config::{LogFormat, NodeConfig};
use std::borrow::Cow;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Sends the process's log to standard error, as the configuration says. The first call in a
/// process wins; later ones (embedded nodes, tests) change nothing.
pub fn init(config: &NodeConfig) {
    let filter = EnvFilter::try_new(directives(&config.log_filter))
        .unwrap_or_else(|_| EnvFilter::new(directives("info")));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A subscriber that is set already belongs to the program that embeds us.
    let _already_set = match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Plain => lines.with_ansi(false).without_time().try_init(),
    };
}

/// The directives of a filter. A mere level is about ringdove; what its dependencies say below a
/// warning has to be asked for, as in `info,openraft=debug`. Openraft warns of every request that a
/// dead peer doesn't answer, which ringdove says once and in its own words.
fn directives(filter: &str) -> Cow<'_, str> {
    if filter.contains(['=', ',']) || matches!(filter, "off" | "error") {
        return filter.into();
    }
    format!("{filter},openraft=error,foca=warn,quinn=warn,quinn_proto=warn,rustls=warn").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_about_ringdove() {
        let info = directives("info");
        assert!(info.starts_with("info,openraft=error"));
        assert!(EnvFilter::try_new(info).is_ok());
        assert_eq!(directives("info,openraft=debug"), "info,openraft=debug");
        assert_eq!(directives("error"), "error");
    }
}
