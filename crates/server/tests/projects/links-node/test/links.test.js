const assert = require("node:assert");
const { after, before, test } = require("node:test");
const links = require("../links.js");

let db;
before(async () => (db = await links.open()));
after(() => db.end());

test("a short link leads to where it was last made to", async () => {
  await links.shorten(db, "a", "https://example.org/1");
  await links.shorten(db, "a", "https://example.org/2");
  assert.equal(await links.resolve(db, "a"), "https://example.org/2");
});

test("a link that nobody made leads nowhere", async () => {
  assert.equal(await links.resolve(db, "nowhere"), null);
});
