//! How far something is, for whoever waits.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock;
use crate::witness::Seconds;

/// A line that is rewritten on a terminal, and printed now and then elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    every: Seconds,
    last: Seconds,
}

impl Progress {
    /// It is printed so often where there is no terminal.
    pub(crate) fn new(every: Seconds) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{spinner} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { bar, every, last: clock::now() }
    }

    pub(crate) fn show(&mut self, text: String) {
        if !self.bar.is_hidden() {
            if self.bar.is_finished() {
                self.bar.reset();
            }
            self.bar.set_message(text);
            self.bar.tick();
        } else if clock::now() - self.last > self.every {
            self.last = clock::now();
            eprintln!("  {text}");
        }
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
