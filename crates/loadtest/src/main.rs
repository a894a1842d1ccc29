//! Drives k6 against boxoffice and writes the performance report.

mod model;
mod report;

fn main() {}
