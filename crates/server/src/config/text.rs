//! What people read of the settings: `config show`, `config keys`, help texts, `docs/settings.md`.

use std::fmt::Write;

use toml::Value;

use super::layers::Loaded;
use super::table::{Config, SECTIONS, Setting, setting};
use super::value::Kind;

/// The help text of a flag that sets `key`.
pub(crate) fn flag_help(key: &str) -> String {
    let Some(setting) = setting(key) else { return String::new() };
    let help = setting.help.trim_end_matches('.').replace('`', "");
    format!("{help} [sets {key}; default: {}]", setting.default())
}

/// Every setting as text, by section: its key, values and default, and what it does.
pub(crate) fn keys_text() -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    for section in SECTIONS {
        if !section.name().is_empty() {
            let _ = writeln!(out, "\n[{}]  {}\n", section.name(), section.help);
        }
        for setting in section.settings {
            let (values, default) = (setting.values(), setting.default());
            let _ = writeln!(out, "{}: {values} [default: {default}]", setting.key);
            let _ = writeln!(out, "    {}", setting.meaning("\n    "));
        }
    }
    out.replace('`', "")
}

impl Loaded {
    /// The whole configuration as TOML with secrets redacted; each value that some layer set is
    /// followed by a comment that says which.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        for section in SECTIONS {
            if !section.name().is_empty() {
                let _ = writeln!(out, "\n[{}]", section.name());
            }
            for setting in section.settings {
                let Some(value) = (setting.get)(&self.config) else { continue };
                let _ = write!(out, "{} = {value}", setting.name());
                if let Some(source) = self.sources.get(setting.key) {
                    let _ = write!(out, "  # from {source}");
                }
                out.push('\n');
            }
        }
        out
    }
}

impl Setting {
    /// The unit of its number, which its name ends with.
    fn unit(&self) -> &'static str {
        let units = [
            ("_ms", " ms"),
            ("_seconds", " s"),
            ("_hours", " h"),
            ("_bytes", " bytes"),
            ("per_second", " per second"),
        ];
        let named = units.iter().find(|(end, _)| self.key.ends_with(end));
        named.map_or("", |(_, unit)| unit)
    }

    /// The default as people read it: without quotes, and in words where there is nothing.
    fn default(&self) -> String {
        match (self.get)(&Config::default()) {
            None => "none".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
            Some(Value::String(text)) => text,
            Some(Value::Array(items)) if items.is_empty() => "none".to_owned(),
            Some(value) => value.to_string(),
        }
    }

    /// Which values it can have, with the unit.
    fn values(&self) -> String {
        if let Some(range) = &self.range {
            let (min, max) = (range.limits)();
            return format!("{min} to {max}{}", self.unit());
        }
        let kind = match self.kind {
            Kind::Text => "text",
            Kind::File => "path",
            Kind::Address => "address:port",
            Kind::Integer => "whole number",
            Kind::Float => "number",
            Kind::Bool => "`true`, `false`",
            Kind::List => "list of texts",
            Kind::Choice(words) => {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                return words.join(", ");
            }
        };
        let secret = if self.secret { ", secret" } else { "" };
        format!("{kind}{}{secret}", self.unit())
    }

    /// What it does, and what each of its words means.
    fn meaning(&self, line_break: &str) -> String {
        let mut out = self.help.to_owned();
        if let Kind::Choice(words) = self.kind {
            out.extend(words.iter().map(|(word, help)| format!("{line_break}`{word}`: {help}")));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTRODUCTION: &str = r#"# Settings

Nothing has to be set. This page is generated from the table in `crates/server/src/config/table.rs`.

## Where settings come from

There are four layers; the later wins:

1. the built-in defaults;
2. a TOML file: `--config FILE`, or else the one that `BOXOFFICE_CONFIG` names, or else `boxoffice.toml` in
   the working directory if there is one;
3. environment variables: `BOXOFFICE_`, then the key in capitals, with two underscores for each dot;
4. flags: `--set KEY=VALUE` for any key. `--data-dir`, `serve --listen`, `serve --no-demo` and
   `consume --brokers` are short for the settings that their help names.

| layer | how it sets `queue.admit_per_second` |
|---|---|
| file | `admit_per_second = 500` under `[queue]` |
| environment | `BOXOFFICE_QUEUE__ADMIT_PER_SECOND=500` |
| flag | `--set queue.admit_per_second=500` |

In a variable or a flag, a list is written with commas between its items, or as a TOML array; a whole number may
have underscores (`20_000`); text needs no quotes.

All settings are read at the start and checked as a whole. Problems are reported together, each with the key and
with the file, variable or flag that its value came from. A key that does not exist is a problem too.

```
$ BOXOFFICE_QUEUE__RATE=1 boxoffice --set server.lissten=x config check
error: the configuration has 2 problems:
  queue.rate: there is no such key (from environment variable BOXOFFICE_QUEUE__RATE)
  server.lissten: there is no such key; did you mean server.listen? (from flag --set server.lissten)
```

`boxoffice config check` only checks. `boxoffice config show` prints every value, and where it came from unless it
is a default. `boxoffice config keys` prints what this page says of each key.

What MySQL, Redis and Kafka need, and how to run several instances, is in [operations](operations.md).

## Settings of new queues

A queue keeps its `admit_per_second`, `max_active`, opening time and pause in the store, because operators change
them while it runs. The settings `queue.admit_per_second` and `queue.max_active` are given to new queues only. Where
they differ from what the store says, the log has a warning; `boxoffice queue set` changes a queue that exists.

## Secrets

A signing key for tickets is made once and kept in the store. An admin token is made once and kept in `admin.token`
in the data directory, readable by its owner only. Passwords are only needed where a database, Redis or Kafka asks
for one.

A secret that has a second key ending in `_file` can be read from a file, so that it does not stand in a
configuration file, a process list or an environment. The path is absolute or relative to the working directory;
white space around the content is dropped. A secret given both ways is an error.

Secrets are never printed: `boxoffice config show` says `<redacted>`, and no message quotes one.
"#;

    /// The text of `docs/settings.md`.
    fn settings_markdown() -> String {
        let mut out = INTRODUCTION.to_owned();
        // Writing to a string cannot fail.
        for section in SECTIONS {
            let about = match section.name() {
                "" => "In no section".to_owned(),
                name => format!("`[{name}]`\n\n{}", section.help),
            };
            let _ = write!(
                out,
                "\n## {about}\n\n| setting | values | default | meaning |\n|---|---|---|---|\n"
            );
            for setting in section.settings {
                let default = match setting.default() {
                    words if ["none", "empty"].contains(&&*words) => words,
                    value => format!("`{value}`"),
                };
                let (key, values) = (setting.key, setting.values());
                let meaning = setting.meaning("<br>");
                let _ = writeln!(out, "| `{key}` | {values} | {default} | {meaning} |");
            }
        }
        out
    }

    #[test]
    fn settings_md_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
        let wanted = settings_markdown();
        if std::env::var_os("BOXOFFICE_TEST_BLESS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/settings.md differs from the table; regenerate it with \
             `BOXOFFICE_TEST_BLESS=1 cargo test -p boxoffice settings_md`"
        );
    }
}
