//! What tests, load tests and the lab run on: instances of the service, clusters of them, and the servers
//! behind them. Each thing is started and stopped here and nowhere else.
//!
//! Whatever is started has a process group, a directory and ports of its own, is stopped by its process id,
//! and dies with this program however that ends. Starting waits until a server serves; if it does not,
//! the error has the end of its log. All of this blocks.
//!
//! Does not belong here: making load, and judging what came of it.

pub mod alertmanager;
pub mod cluster;
pub mod cpus;
pub mod engine;
pub mod fault_proxy;
pub mod haproxy;
pub mod http;
pub mod instance;
pub mod kafka;
pub mod machine;
pub mod mariadb;
pub mod nginx;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod redis;
pub mod signals;
pub mod tools;
pub mod workdir;

pub use alertmanager::{Alertmanager, Webhook};
pub use cluster::{Cluster, ClusterOptions};
pub use cpus::Cpus;
pub use engine::Engine;
pub use fault_proxy::{FaultProxy, Mode};
pub use haproxy::Haproxy;
pub use instance::{Audit, Instance, InstanceOptions};
pub use kafka::Kafka;
pub use machine::Machine;
pub use mariadb::MariaDb;
pub use nginx::Nginx;
pub use ports::free_port;
pub use process::Process;
pub use prometheus::Prometheus;
pub use redis::{Redis, RedisCluster, RedisForm, RedisServer, Sentinels};
pub use tools::tool;
pub use workdir::Workdir;
