//! The service's own log: `tracing` to standard error.
//!
//! What does not belong here: metrics, and what is logged.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Starts logging as configured: text where standard error is a terminal, JSON elsewhere, unless
/// the format is set.
///
/// A process has one subscriber; a second call leaves the first in place, so that tests may all
/// call this. Directives that do not parse fall back to `info`: [`crate::config::Config::load`]
/// has refused them already.
pub fn init(config: &LogConfig) {
    let filter = config.filter().unwrap_or_else(|_| Targets::new().with_default(Level::INFO));
    let terminal = std::io::stderr().is_terminal();
    let text = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if text {
        layer.with_ansi(terminal).boxed()
    } else {
        layer.json().flatten_event(true).with_current_span(false).boxed()
    };
    if tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_err() {
        tracing::debug!("logging was already started");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_is_fine() {
        init(&LogConfig::default());
        init(&LogConfig { level: "debug".into(), format: LogFormat::Json });
    }
}
