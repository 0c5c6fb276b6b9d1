"""The shop's migrations: what is there stays, so that they may run before each deploy."""

from shop import DATABASE, database

with database() as found:
    found.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, state TEXT)")
    found.execute("CREATE TABLE IF NOT EXISTS beats (number INTEGER)")
    found.execute("INSERT INTO beats SELECT 0 WHERE NOT EXISTS (SELECT * FROM beats)")
print(f"{DATABASE} is up to date")
