//! The audit: every numbered invariant, checked on the live service or on a store at rest.

use boxoffice_backends::Fault;
use boxoffice_domain::invariant::{Finding, Invariant};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;

/// What an audit found.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// Whether no invariant is broken.
    pub clean: bool,
    /// One entry for each invariant.
    pub invariants: Vec<AuditEntry>,
}

/// What an audit found of one invariant.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its number.
    #[schema(example = "I1")]
    pub code: String,
    /// The rule.
    pub title: String,
    /// How many things were looked at.
    pub checked: u64,
    /// How many break it.
    pub violations: u64,
    /// The first few of them.
    pub examples: Vec<String>,
}

impl AuditReport {
    /// Sums findings up, in the order of the invariants.
    pub fn new(findings: &[Finding]) -> Self {
        let invariants: Vec<AuditEntry> = Invariant::ALL
            .into_iter()
            .map(|invariant| {
                let parts = || findings.iter().filter(move |part| part.invariant == invariant);
                AuditEntry {
                    code: invariant.code().to_owned(),
                    title: invariant.title().to_owned(),
                    checked: parts().map(|part| part.checked).sum(),
                    violations: parts().map(|part| part.violations).sum(),
                    examples: parts().flat_map(|part| part.examples.clone()).collect(),
                }
            })
            .collect();
        Self { clean: invariants.iter().all(|entry| entry.violations == 0), invariants }
    }

    /// The report as a table for people.
    pub fn to_text(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        for entry in &self.invariants {
            let verdict = if entry.violations == 0 { "ok" } else { "BROKEN" };
            // Writing into a String does not fail.
            let _ = writeln!(
                text,
                "{:<3} {verdict:<6} {:>10} checked {:>6} violations  {}",
                entry.code, entry.checked, entry.violations, entry.title
            );
            for example in &entry.examples {
                let _ = writeln!(text, "      {example}");
            }
        }
        let verdict = if self.clean { "clean" } else { "NOT CLEAN" };
        let _ = writeln!(text, "audit: {verdict}");
        text
    }
}

/// Audits the running service, and counts what it finds for Prometheus.
///
/// # Errors
/// Where the store cannot be read.
pub async fn audit(app: &App) -> Result<AuditReport, Fault> {
    let now = app.clock.now();
    let mut findings = app.store.audit(now).await?;
    findings.extend(app.sequencer.audit(now));
    for finding in &findings {
        let label = finding.invariant.into();
        app.metrics.invariant_violations.get_or_create(&label).inc_by(finding.violations);
        for example in &finding.examples {
            tracing::error!(invariant = finding.invariant.code(), example, "invariant broken");
        }
    }
    Ok(AuditReport::new(&findings))
}
