//! The service's own log: `tracing` to standard error.
//!
//! What does not belong here: metrics, and what is logged.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};
use crate::http::request_id::RequestId;

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
        let json = layer.json().flatten_event(true).with_current_span(false);
        json.map_event_format(OfRequest).boxed()
    };
    if tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_err() {
        tracing::debug!("logging was already started");
    }
}

/// JSON lines, with the ids of the request in whose course they are written. So whoever logs needs no handle on the
/// request, and a request that logs nothing pays nothing.
#[derive(Debug)]
struct OfRequest<F>(F);

impl<S, N, F> FormatEvent<S, N> for OfRequest<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // The line about the request as a whole is written after it, and has them among its fields.
        let Some(id) = RequestId::current() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let Some(fields) = line.strip_suffix("}\n") else { return writer.write_str(&line) };
        // A client may choose it, from all that is visible.
        let quoted = serde_json::Value::from(id.to_string());
        write!(writer, "{fields},\"request.id\":{quoted}")?;
        if let Some(trace) = id.trace() {
            write!(writer, ",\"trace.id\":\"{trace}\"")?;
        }
        writer.write_str("}\n")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use axum::http::{HeaderMap, HeaderValue};
    use parking_lot::Mutex;

    use super::*;
    use crate::http::request_id::RequestIds;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_in_the_course_of_a_request_says_of_which() {
        let log = Log::default();
        let writer = log.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let layer = layer.json().flatten_event(true).with_current_span(false);
        let subscriber = tracing_subscriber::registry().with(layer.map_event_format(OfRequest));
        let _guard = tracing::subscriber::set_default(subscriber);
        let lines = || {
            let text = String::from_utf8(std::mem::take(&mut *log.0.lock())).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.collect::<Vec<serde_json::Value>>()
        };

        tracing::info!(queue.name = "main", "before any");
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static(r#"a"},{\b"#));
        let of = |headers: &HeaderMap| Some(RequestIds::new().take_or_make(headers));
        RequestId::replace_current(of(&headers));
        tracing::info!("in one without a trace");
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert("traceparent", HeaderValue::from_static(parent));
        RequestId::replace_current(of(&headers));
        tracing::info!("in one of a trace");
        RequestId::replace_current(None);
        tracing::info!("after them");

        let lines = lines();
        assert_eq!(lines.len(), 4);
        for line in [&lines[0], &lines[3]] {
            assert!(line.get("request.id").is_none() && line.get("trace.id").is_none(), "{line}");
        }
        assert_eq!(lines[0]["queue.name"], "main");
        for line in &lines[1..3] {
            assert_eq!(line["request.id"], r#"a"},{\b"#);
        }
        assert!(lines[1].get("trace.id").is_none(), "{}", lines[1]);
        assert_eq!(lines[2]["trace.id"], "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn twice_is_fine() {
        init(&LogConfig::default());
        init(&LogConfig { level: "debug".into(), format: LogFormat::Json });
    }
}
