//! The services that a repository's files name: in its Compose file, or in the addresses of its example variables.

use super::super::values::is_variable;

/// Files of Compose, the usual one first.
const COMPOSE: &[&str] = &[
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    ".devcontainer/docker-compose.yml",
    ".devcontainer/compose.yaml",
];

/// Files that show which variables are to be set.
const EXAMPLES: &[&str] = &[".env.example", ".env.sample", ".env.template", ".env.dist", ".env.test", "example.env"];

/// Variables of one service.
const VARIABLES_MAX: usize = 8;

/// A service that a file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    /// The file.
    pub(super) source: String,
    /// Variables that hold its address.
    pub(super) variables: Vec<String>,
}

/// A program that repositories use as a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Postgres,
    Redis,
    Memcached,
    MySql,
    MongoDb,
    RabbitMq,
    Elasticsearch,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Postgres, Self::Redis, Self::Memcached, Self::MySql, Self::MongoDb, Self::RabbitMq, Self::Elasticsearch];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Memcached => "memcached",
            Self::MySql => "mysql",
            Self::MongoDb => "mongodb",
            Self::RabbitMq => "rabbitmq",
            Self::Elasticsearch => "elasticsearch",
        }
    }

    /// The last words of images that are it.
    fn images(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres", "postgresql", "postgis", "timescaledb", "pgvector"],
            Self::Redis => &["redis", "valkey", "redis-stack-server"],
            Self::Memcached => &["memcached"],
            Self::MySql => &["mysql", "mariadb", "mysql-server"],
            Self::MongoDb => &["mongo", "mongodb"],
            Self::RabbitMq => &["rabbitmq"],
            Self::Elasticsearch => &["elasticsearch", "opensearch"],
        }
    }

    /// The schemes of its addresses.
    fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres", "postgresql"],
            Self::Redis => &["redis"],
            Self::Memcached => &["memcached"],
            Self::MySql => &["mysql", "mariadb"],
            Self::MongoDb => &["mongodb"],
            Self::RabbitMq => &["amqp"],
            Self::Elasticsearch => &["elasticsearch"],
        }
    }

    /// Debian's package of it.
    pub(super) fn package(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("postgresql"),
            Self::Redis => Some("redis-server"),
            Self::Memcached => Some("memcached"),
            Self::MySql | Self::MongoDb | Self::RabbitMq | Self::Elasticsearch => None,
        }
    }

    pub(super) fn port(self) -> Option<u16> {
        match self {
            Self::Postgres => Some(5432),
            Self::Redis => Some(6379),
            Self::Memcached => Some(11211),
            Self::MySql | Self::MongoDb | Self::RabbitMq | Self::Elasticsearch => None,
        }
    }

    /// How it runs, with Debian's package of it.
    pub(super) fn command(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some(POSTGRES),
            Self::Redis => Some("exec redis-server --save '' --appendonly no\n"),
            Self::Memcached => Some("exec memcached -u root -l 127.0.0.1\n"),
            Self::MySql | Self::MongoDb | Self::RabbitMq | Self::Elasticsearch => None,
        }
    }

    /// Postgres listens before it takes connections; its own program knows.
    pub(super) fn ready(self) -> Option<&'static str> {
        (self == Self::Postgres).then_some("pg_isready --quiet --host 127.0.0.1")
    }

    /// Its address, as the command above makes it.
    pub(super) fn url(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("postgres://postgres@127.0.0.1:5432/postgres"),
            Self::Redis => Some("redis://127.0.0.1:6379"),
            Self::Memcached => Some("memcached://127.0.0.1:11211"),
            Self::MySql | Self::MongoDb | Self::RabbitMq | Self::Elasticsearch => None,
        }
    }
}

/// Postgres does not run as root. Its files stay in the sandbox, so that a restored one has its data.
const POSTGRES: &str = r#"set -e
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
data=/var/lib/hob-postgres
if [ ! -s $data/PG_VERSION ]; then
    install -d -o postgres -m 700 $data
    su postgres -s /bin/sh -c "$bin/initdb --auth trust --encoding UTF8 --pgdata $data"
fi
rm -f $data/postmaster.pid
exec su postgres -s /bin/sh -c "exec $bin/postgres -D $data -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp"
"#;

/// The services that a repository's files name, each once.
pub(super) fn services(files: &[String], read: &mut impl FnMut(&str) -> Option<String>) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut add = |kind: Kind, source: &str, variable: Option<&str>| {
        let at = found.iter().position(|found| found.kind == kind).unwrap_or_else(|| {
            found.push(Found { kind, source: source.to_owned(), variables: Vec::new() });
            found.len() - 1
        });
        let Some(name) = variable else { return };
        let is_known = found.iter().any(|found| found.variables.iter().any(|known| known == name));
        if !is_known && found[at].variables.len() < VARIABLES_MAX {
            found[at].variables.push(name.to_owned());
        }
    };
    let is_there = |path: &&&str| files.iter().any(|file| file == **path);
    for path in COMPOSE.iter().filter(is_there) {
        read(path).unwrap_or_default().lines().filter_map(image).for_each(|kind| add(kind, path, None));
    }
    for path in EXAMPLES.iter().filter(is_there) {
        for (name, kind) in read(path).unwrap_or_default().lines().filter_map(address) {
            add(kind, path, Some(name));
        }
    }
    found
}

/// What a line of a Compose file names as an image. The file is YAML, of which only this is read: a draft need not
/// understand it.
fn image(line: &str) -> Option<Kind> {
    let value = line.trim_start().trim_start_matches("- ").strip_prefix("image:")?;
    let value = value.trim().trim_matches(['"', '\'']);
    let name = value.split(['@', ' ']).next()?.rsplit('/').next()?.split(':').next()?;
    Kind::ALL.into_iter().find(|kind| kind.images().contains(&name))
}

/// The variable of a line `NAME=scheme://…`, and what it is the address of.
fn address(line: &str) -> Option<(&str, Kind)> {
    let (name, value) = line.trim_start().trim_start_matches("export ").split_once('=')?;
    let scheme = value.trim().trim_matches(['"', '\'']).split_once("://")?.0;
    // `postgresql+asyncpg` is an address for one library of Python.
    let scheme = scheme.split('+').next()?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.schemes().contains(&scheme))?;
    is_variable(name.trim()).then_some((name.trim(), kind))
}
