-- Asynchronous invocations. Times are microseconds since 1970 (_us).

CREATE TABLE functions (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- What waits in one line: the events for a function's qualifier, or what is to be sent to an address for it.
CREATE TABLE lanes (
    id        INTEGER PRIMARY KEY,
    function  INTEGER NOT NULL REFERENCES functions (id),
    qualifier TEXT NOT NULL, -- '': LATEST
    url       TEXT NOT NULL, -- '': the function is invoked
    UNIQUE (function, qualifier, url)
) STRICT;

CREATE TABLE invocations (
    seq         INTEGER PRIMARY KEY, -- the order of acceptance
    function    INTEGER NOT NULL,
    lane        INTEGER NOT NULL,
    id          ANY NOT NULL,     -- 16 bytes of a UUID, or else its text
    state       INTEGER NOT NULL, -- 0 waiting, 1 running, 2 succeeded, 3 failed, 4 expired, 5 stopped
    at_us       INTEGER NOT NULL, -- when it is due, began or ended
    accepted_us INTEGER NOT NULL,
    attempts    INTEGER NOT NULL, -- that began
    failures    INTEGER NOT NULL, -- those of them that count
    replayed    INTEGER NOT NULL DEFAULT 0, -- whether it was replayed
    origin      TEXT,             -- JSON: who sent it, and how it is called; NULL: nothing to say
    event       BLOB,             -- NULL: too large to be kept after the end
    result      TEXT,             -- JSON: how the last attempt ended; NULL: none has
    reply       BLOB
) STRICT;
-- An identifier is known once for each function, however often it is sent.
CREATE UNIQUE INDEX invocations_id ON invocations (id, function);
-- What is next in a lane, what ended first, and all of one state.
CREATE INDEX invocations_state ON invocations (lane, state, at_us);

-- Timers: the last tick that was dealt with, so that none comes twice, whatever is restarted or forgotten.
CREATE TABLE ticks (
    function TEXT NOT NULL,
    trigger  TEXT NOT NULL,
    schedule TEXT NOT NULL, -- with another one it begins anew
    last_us  INTEGER NOT NULL,
    runs     TEXT NOT NULL, -- JSON: the identifiers of its newest invocations, the newest first
    PRIMARY KEY (function, trigger)
) STRICT, WITHOUT ROWID;
