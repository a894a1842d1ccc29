//! The door: who joins while it is guarded shows the solution of a challenge.
//!
//! What does not belong here: what a challenge is (see `crate::challenge`), and limits of a client address
//! (see `rate_limit`).

use std::time::Duration;

use boxoffice_backends::sequencer::{Name, Queue, Solution, Use};
use boxoffice_domain::ids::UserId;
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::client::ClientAddress;
use super::problem::{ErrorCode, Problem};
use crate::app::App;
use crate::challenge::{Challenge, Challenges, Rate, Whom, maxnumber};
use crate::config::{ChallengeConfig, ChallengeMode, QueueKind};
use crate::metrics::{AtTheDoor, AtTheDoorLabel, Metrics};

/// What stands before joins.
pub(super) struct Door {
    config: ChallengeConfig,
    challenges: Challenges,
    joins: Mutex<Rate>,
}

/// Somebody at the door.
pub(super) struct AtDoor<'a> {
    /// The queue.
    pub queue: &'a str,
    /// Who it is, where people are known.
    pub person: Option<UserId>,
    /// Where they come from.
    pub client: ClientAddress,
    /// What a repeated join is known by.
    pub name: Option<Name>,
    /// The solution that they show.
    pub solution: Option<&'a str>,
}

impl Door {
    /// A door for a service.
    pub(super) fn new(app: &App) -> Self {
        // Alone, a process forgets what was used when it ends; instances have Redis to know it.
        let memory = match app.config.queue.kind {
            QueueKind::Local => Uuid::new_v4(),
            QueueKind::Redis => Uuid::nil(),
        };
        Self {
            config: app.config.challenge.clone(),
            challenges: Challenges::new(&app.tickets.challenge_keys(), memory),
            joins: Mutex::default(),
        }
    }

    /// Whether joins may be asked for a solution.
    pub(super) fn is_guarded(&self) -> bool {
        self.config.mode != ChallengeMode::Off
    }

    /// A challenge for somebody, or for whoever comes from the address of a client. It is to be had whatever
    /// the mode is, so that a page need not know.
    pub(super) fn challenge(
        &self,
        app: &App,
        queue: &Queue,
        person: Option<UserId>,
        client: ClientAddress,
        now: Timestamp,
    ) -> Result<Challenge, Problem> {
        let Self { config, challenges, joins } = self;
        let joins_per_second = joins.lock().per_second(now);
        let maxnumber = maxnumber(config, joins_per_second).unwrap_or(config.maxnumber_min);
        let whom = person.map_or(Whom::Address(client.stranger()), Whom::Person);
        let expires_at = now.plus(Duration::from_secs(config.valid_seconds));
        let made = challenges.make(queue.name().as_str(), whom, maxnumber, expires_at);
        let made = made.ok_or_else(|| Problem::internal("there is no key for challenges"))?;
        count(&app.metrics, AtTheDoor::Made);
        Ok(made)
    }

    /// Lets somebody in who comes now, or says why not.
    ///
    /// # Errors
    /// 403 without a good solution, 409 with one that was used, 503 where nobody can tell.
    pub(super) async fn let_in(
        &self,
        app: &App,
        somebody: AtDoor<'_>,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let joins_per_second = {
            let mut joins = self.joins.lock();
            joins.note(now);
            joins.per_second(now)
        };
        if maxnumber(&self.config, joins_per_second).is_none() {
            return Ok(());
        }
        let admitted = self.check(app, somebody, now).await;
        count(
            &app.metrics,
            match &admitted {
                Ok(()) => AtTheDoor::Solved,
                Err(problem) => match problem.code() {
                    ErrorCode::ChallengeRequired => AtTheDoor::Missing,
                    ErrorCode::ChallengeInvalid => AtTheDoor::Invalid,
                    ErrorCode::ChallengeUsed => AtTheDoor::Used,
                    _ => AtTheDoor::Unknown,
                },
            },
        );
        admitted
    }

    async fn check(&self, app: &App, somebody: AtDoor<'_>, now: Timestamp) -> Result<(), Problem> {
        let AtDoor { queue, person, client, name, solution } = somebody;
        let advice = |what: &str| {
            format!(
                "{what}; get a challenge from /api/v1/waiting-queues/{queue}/challenge, and send its \
                 solution as the field altcha"
            )
        };
        let solution = solution.filter(|text| !text.is_empty()).ok_or_else(|| {
            Problem::new(ErrorCode::ChallengeRequired).detail(advice("no solution was sent"))
        })?;
        let address = Whom::Address(client.stranger());
        // A page may have got the challenge before it knew who asks.
        let whom = [person.map_or(address, Whom::Person), address];
        let checked = self.challenges.check(solution, queue, &whom, now);
        let solution = checked.map_err(|flaw| {
            Problem::new(ErrorCode::ChallengeInvalid).detail(advice(flaw.detail()))
        })?;
        let solution = Solution { by: name.map(by), ..solution };
        match app.sequencer.use_solution(&solution, now).await {
            Use::First | Use::Again => Ok(()),
            Use::Another => Err(Problem::new(ErrorCode::ChallengeUsed)
                .detail(advice("the solution was used for another join"))),
            Use::Unknown => Err(Problem::new(ErrorCode::Overloaded)
                .retry_after(10)
                .because("too many solutions of challenges are remembered")),
        }
    }
}

fn count(metrics: &Metrics, what: AtTheDoor) {
    metrics.challenges.get_or_create(&AtTheDoorLabel { result: what }).inc();
}

/// What a repetition by the same is known by.
fn by(name: Name) -> [u8; 16] {
    match name {
        Name::Key(digest) => digest,
        Name::Person(user) => {
            let digest =
                Sha256::new().chain_update(b"person").chain_update(user.get().to_be_bytes());
            let mut by = [0; 16];
            by.copy_from_slice(&digest.finalize()[..16]);
            by
        }
    }
}
