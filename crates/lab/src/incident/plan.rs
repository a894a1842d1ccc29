//! Which incidents there are: what breaks, which alarm must be heard, what answers, and what must hold.

use testbed::{Mode, RedisForm};

use crate::witness::Seconds;

/// An incident, as the list has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incident {
    pub(crate) name: &'static str,
    /// What happens, in English and in Korean.
    pub(crate) about: [&'static str; 2],
    pub(crate) stage: Stage,
    pub(crate) cause: Cause,
    /// Any of these alarms counts, within so many seconds; none where nothing may be heard.
    pub(crate) alarms: &'static [&'static str],
    pub(crate) alarm_within: Seconds,
    pub(crate) answer: Answer,
    /// Fans a second, whom k6 makes.
    pub(crate) fans: u32,
    /// How long the cause lasts where nothing else ends it, and how long it is watched afterwards.
    pub(crate) lasts: Seconds,
    pub(crate) after: Seconds,
    pub(crate) checks: &'static [Check],
}

/// What it happens to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stage {
    /// Instances behind haproxy on MariaDB, Redis and Kafka.
    Cluster {
        redis: RedisForm,
        /// A proxy that can fail stands before the database.
        database_proxy: bool,
        /// The part of a CPU that each instance has from the fault on.
        quota: Option<f64>,
        /// A second database follows the first, and seat lists are read from it.
        replica: bool,
    },
    /// One process with SQLite, on a disk of its own of so many megabytes.
    Embedded { disk_mb: u32 },
}

/// Three instances on one Redis.
const CLUSTER: Stage =
    Stage::Cluster { redis: RedisForm::Single, database_proxy: false, quota: None, replica: false };
/// The same with a proxy that can fail before the database.
const BEHIND_PROXY: Stage =
    Stage::Cluster { redis: RedisForm::Single, database_proxy: true, quota: None, replica: false };

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cause {
    /// So many fans come at once.
    Crowd(u32),
    /// Statements take longer, then an index is missing, then rows are locked from outside: a third of the time each.
    SlowDatabase,
    /// All connections of the database are used up from outside.
    Connections,
    /// So many seat lists a second.
    Reads(u32),
    /// Redis is killed and comes back empty.
    RedisCrash,
    /// Redis is told to forget everything.
    RedisWiped,
    /// The master is killed, and the sentinels choose another.
    RedisFailover,
    /// Redis is stopped as for maintenance, and then every instance must say that it has it, and the audit be clean.
    RedisRestart,
    /// Kafka hangs.
    Kafka,
    /// The disk is full.
    Disk,
    /// So many holds a second.
    Holds(u32),
    /// Every instance is replaced, one after another.
    Rolling,
    /// Two at once: Redis is killed while the database is slow.
    Both,
}

/// What answers, and can be switched off to see that an incident can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Admission slows by itself.
    Governor,
    /// The hook behind Alertmanager starts one more instance.
    Hook,
    /// Seat lists come from memory and from a replica.
    Replica,
    /// Requests beyond the limit of their class are turned away at once.
    Shedding,
    /// An instance that ends finishes what it has begun.
    Drain,
    /// The service as it is; there is nothing to switch off.
    Design,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Check {
    /// The witness and the audits find nothing.
    NothingLost,
    /// Of those who were let in and looked for a seat, so many have one in the end.
    Bought(f64),
    /// 99 of 100 polls take no longer than so many times what they took before.
    Polls(f64),
    /// Everything is as before so many seconds after the cause is over.
    BackWithin(Seconds),
    /// Joins are refused for so many seconds at the most.
    JoinsRefused(Seconds),
    /// The new instance has its part of the requests so many seconds after it was started.
    SharedWithin(Seconds),
    /// So many of the payments that were asked for were answered, and not refused or left without an answer.
    Paid(f64),
    /// Of the seat lists, so many are a query at the primary at the most.
    PrimaryReads(f64),
    /// At the worst so much is done of what is done at the best.
    Goodput(f64),
    /// No request fails.
    NoneFailed,
    /// Admission slowed by itself.
    Slowed,
    /// While it lasts, who looks is answered.
    ReadsGoOn,
}

use Check::{
    BackWithin, Bought, Goodput, JoinsRefused, NoneFailed, NothingLost, Paid, Polls, PrimaryReads,
    ReadsGoOn, SharedWithin, Slowed,
};

const fn incident(
    name: &'static str,
    about: [&'static str; 2],
    cause: Cause,
    checks: &'static [Check],
) -> Incident {
    Incident {
        name,
        about,
        stage: CLUSTER,
        cause,
        alarms: &[],
        alarm_within: 30.0,
        answer: Answer::Design,
        fans: 15,
        lasts: 40.0,
        after: 40.0,
        checks,
    }
}

impl Incident {
    const fn heard_as(mut self, alarms: &'static [&'static str], within: Seconds) -> Self {
        (self.alarms, self.alarm_within) = (alarms, within);
        self
    }

    const fn answered_by(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }

    const fn lasting(mut self, lasts: Seconds, after: Seconds) -> Self {
        (self.lasts, self.after) = (lasts, after);
        self
    }

    const fn on(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    const fn with_fans(mut self, fans: u32) -> Self {
        self.fans = fans;
        self
    }

    /// Whether there is a page that says what to do. Where two things break at once, each has its own.
    pub(crate) const fn has_runbook(&self) -> bool {
        !matches!(self.cause, Cause::Both)
    }
}

const REDIS: &[&str] = &["BoxofficeRedisDown", "BoxofficeRedisErrors", "BoxofficeRedisLost"];
const SLOWED: &[&str] = &["BoxofficeAdmissionSlowed"];

/// A database in another place, where the purchases of a flood take their time.
pub(crate) const FAR: Mode = Mode::Slow(std::time::Duration::from_millis(20));
pub(crate) const SLOW: Mode = Mode::Slow(std::time::Duration::from_millis(200));

/// All of them, in the order in which they are played.
pub(crate) const INCIDENTS: [Incident; 13] = [
    incident(
        "cpu",
        [
            "10,000 people at once, and instances with a sliver of a CPU each",
            "1만 명이 한꺼번에 오고, 인스턴스마다 CPU가 아주 조금뿐이다",
        ],
        Cause::Crowd(10_000),
        &[NothingLost, SharedWithin(10.0)],
    )
    .heard_as(&["BoxofficeCpuSaturated"], 30.0)
    .answered_by(Answer::Hook)
    .on(Stage::Cluster {
        redis: RedisForm::Single,
        database_proxy: false,
        quota: Some(0.06),
        replica: false,
    })
    .with_fans(2)
    .lasting(75.0, 20.0),
    incident(
        "database-slow",
        [
            "statements take 200 ms more, then an index is gone, then rows are locked from outside",
            "쿼리가 200ms씩 더 걸리고, 인덱스가 사라지고, 밖에서 행을 잠근다",
        ],
        Cause::SlowDatabase,
        &[NothingLost, Slowed, Polls(2.0), Bought(0.999), BackWithin(30.0)],
    )
    .heard_as(SLOWED, 30.0)
    .answered_by(Answer::Governor)
    .on(BEHIND_PROXY)
    .lasting(75.0, 50.0),
    incident(
        "database-connections",
        [
            "somebody else uses up all connections of the database",
            "다른 프로그램이 데이터베이스 연결을 모두 써 버린다",
        ],
        Cause::Connections,
        &[NothingLost, Slowed, Polls(2.0), Bought(0.999), BackWithin(30.0)],
    )
    .heard_as(SLOWED, 30.0)
    .answered_by(Answer::Governor)
    .lasting(40.0, 50.0),
    incident(
        "database-reads",
        ["a flood of seat lists", "좌석 조회가 쏟아진다"],
        Cause::Reads(1_200),
        &[NothingLost, PrimaryReads(0.05), Bought(0.999)],
    )
    .heard_as(&["BoxofficeSeatListsFlood", "BoxofficeCpuSaturated", "BoxofficeShedding"], 30.0)
    .answered_by(Answer::Replica)
    .on(Stage::Cluster {
        redis: RedisForm::Single,
        database_proxy: false,
        quota: None,
        replica: true,
    }),
    incident(
        "cache-crash",
        [
            "Redis is killed, and comes back empty after 15 s",
            "Redis가 죽고 15초 뒤 빈 채로 돌아온다",
        ],
        Cause::RedisCrash,
        &[NothingLost, JoinsRefused(1.0), Bought(0.999), BackWithin(10.0)],
    )
    .heard_as(REDIS, 10.0)
    .lasting(15.0, 25.0),
    incident(
        "cache-wiped",
        ["FLUSHALL: Redis forgets everything", "FLUSHALL로 Redis가 모든 것을 잊는다"],
        Cause::RedisWiped,
        &[NothingLost, JoinsRefused(1.0), Bought(0.999), BackWithin(10.0)],
    )
    .heard_as(REDIS, 10.0)
    .lasting(0.0, 30.0),
    incident(
        "cache-failover",
        [
            "the master of Redis is lost, and the sentinels choose another",
            "Redis 마스터가 죽고 센티널이 다른 서버를 고른다",
        ],
        Cause::RedisFailover,
        &[NothingLost, JoinsRefused(1.0), Bought(0.999), BackWithin(10.0)],
    )
    .heard_as(REDIS, 10.0)
    .on(Stage::Cluster {
        redis: RedisForm::Sentinels,
        database_proxy: false,
        quota: None,
        replica: false,
    })
    .lasting(0.0, 30.0),
    incident(
        "cache-restart",
        [
            "Redis is restarted as planned, and checked before it is used",
            "Redis를 계획대로 재시작하고 확인한 뒤에 쓴다",
        ],
        Cause::RedisRestart,
        &[NothingLost, JoinsRefused(1.0), Bought(0.999), BackWithin(10.0)],
    )
    .heard_as(REDIS, 10.0)
    .lasting(5.0, 25.0),
    incident(
        "events-away",
        ["Kafka hangs", "Kafka가 멈춘다"],
        Cause::Kafka,
        &[NothingLost, Bought(0.999), NoneFailed],
    )
    .heard_as(&["BoxofficeEventsWaiting"], 60.0)
    .lasting(65.0, 15.0),
    incident(
        "disk-full",
        ["the disk of an embedded service is full", "내장 모드의 디스크가 가득 찬다"],
        Cause::Disk,
        &[NothingLost, ReadsGoOn, BackWithin(30.0)],
    )
    .heard_as(&["BoxofficeStoreAway"], 30.0)
    .on(Stage::Embedded { disk_mb: 64 })
    .lasting(35.0, 40.0),
    incident(
        "overload",
        [
            "ten times as many purchases as their class may have in progress",
            "허용된 동시 구매 수의 열 배가 몰린다",
        ],
        Cause::Holds(600),
        &[NothingLost, Goodput(0.9), Paid(0.999), Bought(0.999)],
    )
    .heard_as(&["BoxofficeShedding"], 30.0)
    .answered_by(Answer::Shedding)
    .on(BEHIND_PROXY),
    incident(
        "rolling",
        ["every instance is replaced under load", "부하 중에 모든 인스턴스를 하나씩 교체한다"],
        Cause::Rolling,
        &[NothingLost, NoneFailed, Bought(0.999)],
    )
    .answered_by(Answer::Drain)
    .lasting(0.0, 10.0),
    incident(
        "two-at-once",
        ["Redis is killed while the database is slow", "데이터베이스가 느린 동안 Redis가 죽는다"],
        Cause::Both,
        &[NothingLost, Bought(0.999), BackWithin(30.0)],
    )
    // Of the second failure, which comes after half of the time.
    .heard_as(REDIS, 20.0)
    .answered_by(Answer::Governor)
    .on(BEHIND_PROXY)
    .lasting(20.0, 45.0),
];
