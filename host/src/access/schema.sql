-- Access keys and the audit log. Times are microseconds since 1970 (_us), lists are JSON.

CREATE TABLE keys (
    id                  INTEGER PRIMARY KEY,
    secret              BLOB NOT NULL, -- encrypted under the key file (`vault.rs`)
    previous_secret     BLOB,          -- the one before, encrypted in the same way
    previous_until_us   INTEGER,
    description         TEXT NOT NULL,
    functions           TEXT NOT NULL,
    rights              TEXT NOT NULL,
    requests_per_second INTEGER,
    created_us          INTEGER NOT NULL,
    rotated_us          INTEGER,
    expires_us          INTEGER,
    last_used_us        INTEGER NOT NULL -- 0: never
) STRICT;

-- Changes that operators made. `AUTOINCREMENT`: the newest numbers are the newest entries, whatever is deleted.
CREATE TABLE audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us    INTEGER NOT NULL,
    operator TEXT NOT NULL,
    address  TEXT NOT NULL,
    action   TEXT NOT NULL,
    function TEXT,
    detail   TEXT NOT NULL,
    status   INTEGER -- of the answer; NULL: the host ended before it
) STRICT;
