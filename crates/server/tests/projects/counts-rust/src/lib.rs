//! Counts of visits, in Redis.

use redis::{Commands, Connection, RedisResult};

/// Opens the counts of this machine.
pub fn open() -> RedisResult<Connection> {
    redis::Client::open("redis://127.0.0.1/")?.get_connection()
}

/// Counts a visit of a page, and gives how many there were.
pub fn visit(counts: &mut Connection, page: &str) -> RedisResult<u64> {
    counts.incr(format!("visits:{page}"), 1)
}
