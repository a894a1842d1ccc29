//! A change of how a queue admits, which names nothing but what it changes.

use super::QueueSettings;
use crate::time::Timestamp;

/// What to change about how a queue admits. What is `None` stays as it is, whoever changes it
/// meanwhile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsChange {
    /// Admissions a second; finite and above zero.
    pub admit_per_second: Option<f64>,
    /// How many may be active at once; `Some(None)` for no bound.
    pub max_active: Option<Option<u64>>,
    /// When it opens; `Some(None)` for at once.
    pub opens_at: Option<Option<Timestamp>>,
    /// Whether it is paused.
    pub paused: Option<bool>,
}

impl SettingsChange {
    /// Pauses the queue (`true`), or ends a pause.
    pub fn pause(paused: bool) -> Self {
        Self { paused: Some(paused), ..Self::default() }
    }

    /// Whether the queue would open at another time.
    pub fn moves_opening(&self, settings: &QueueSettings) -> bool {
        self.opens_at.is_some_and(|opens_at| opens_at != settings.opens_at)
    }

    /// Carries the change out.
    pub fn apply(&self, settings: &mut QueueSettings) {
        let Self { admit_per_second, max_active, opens_at, paused } = self;
        settings.admit_per_second = admit_per_second.unwrap_or(settings.admit_per_second);
        settings.max_active = max_active.unwrap_or(settings.max_active);
        settings.opens_at = opens_at.unwrap_or(settings.opens_at);
        settings.paused = paused.unwrap_or(settings.paused);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_touches_what_it_names() {
        let before = QueueSettings {
            admit_per_second: 2.0,
            max_active: Some(3),
            active_ttl: Duration::from_secs(4),
            claim_window: Duration::from_secs(5),
            opens_at: Some(Timestamp(6)),
            paused: false,
        };
        let none = SettingsChange::default;
        let same = || before.clone();
        for (change, after) in [
            (none(), same()),
            (
                SettingsChange { admit_per_second: Some(7.5), ..none() },
                QueueSettings { admit_per_second: 7.5, ..same() },
            ),
            (
                SettingsChange { max_active: Some(Some(8)), ..none() },
                QueueSettings { max_active: Some(8), ..same() },
            ),
            (
                SettingsChange { max_active: Some(None), ..none() },
                QueueSettings { max_active: None, ..same() },
            ),
            (
                SettingsChange { opens_at: Some(Some(Timestamp(9))), ..none() },
                QueueSettings { opens_at: Some(Timestamp(9)), ..same() },
            ),
            (
                SettingsChange { opens_at: Some(None), ..none() },
                QueueSettings { opens_at: None, ..same() },
            ),
            (SettingsChange::pause(true), QueueSettings { paused: true, ..same() }),
        ] {
            let mut settings = before.clone();
            change.apply(&mut settings);
            assert_eq!(settings, after, "{change:?}");
        }
        let mut settings = QueueSettings { paused: true, ..before.clone() };
        SettingsChange::pause(false).apply(&mut settings);
        assert_eq!(settings, before);
    }
}
