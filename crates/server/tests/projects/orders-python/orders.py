"""Orders of a shop, in Postgres."""

import pg8000.native


def connect():
    return pg8000.native.Connection("postgres", host="127.0.0.1", database="postgres")


def create(db):
    db.run("CREATE TABLE IF NOT EXISTS orders (id serial PRIMARY KEY, customer text NOT NULL, cents integer NOT NULL)")


def place(db, customer, cents):
    rows = db.run("INSERT INTO orders (customer, cents) VALUES (:c, :p) RETURNING id", c=customer, p=cents)
    return rows[0][0]


def spent(db, customer):
    return db.run("SELECT coalesce(sum(cents), 0) FROM orders WHERE customer = :c", c=customer)[0][0]
