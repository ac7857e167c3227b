// Short links, in Postgres.
const { Client } = require("pg");

async function open() {
  const db = new Client({ host: "127.0.0.1", user: "postgres", database: "postgres" });
  await db.connect();
  await db.query("CREATE TABLE IF NOT EXISTS links (short text PRIMARY KEY, target text NOT NULL)");
  return db;
}

async function shorten(db, short, target) {
  await db.query("INSERT INTO links VALUES ($1, $2) ON CONFLICT (short) DO UPDATE SET target = $2", [short, target]);
}

async function resolve(db, short) {
  const { rows } = await db.query("SELECT target FROM links WHERE short = $1", [short]);
  return rows[0]?.target ?? null;
}

module.exports = { open, shorten, resolve };
