-- The catalog's tables, but for what the files from `schema_2_to_3.sql` on add to new and old ones alike. Times are microseconds since 1970 (_us), lists and maps are JSON.

-- What functions were at one time. `AUTOINCREMENT`: an identifier is never used again, whatever is deleted.
CREATE TABLE revisions (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    function        TEXT NOT NULL,
    sha256          TEXT NOT NULL,
    component_bytes INTEGER NOT NULL,
    exports         TEXT NOT NULL,
    settings        TEXT NOT NULL,
    created_us      INTEGER NOT NULL
) STRICT;
CREATE INDEX revisions_function ON revisions (function);

CREATE TABLE functions (
    name        TEXT PRIMARY KEY,
    latest      INTEGER NOT NULL REFERENCES revisions (id),
    description TEXT NOT NULL,
    tags        TEXT NOT NULL,
    suspended   INTEGER NOT NULL,
    disabled    TEXT, -- why; NULL: it is enabled
    created_us  INTEGER NOT NULL,
    updated_us  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE versions (
    function    TEXT NOT NULL,
    number      INTEGER NOT NULL,
    revision    INTEGER NOT NULL REFERENCES revisions (id),
    description TEXT NOT NULL,
    created_us  INTEGER NOT NULL,
    PRIMARY KEY (function, number)
) STRICT, WITHOUT ROWID;

-- The last number that a version of the function got. It stays when the version or the function is deleted.
CREATE TABLE last_versions (
    function TEXT PRIMARY KEY,
    number   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE aliases (
    function    TEXT NOT NULL,
    name        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    weights     TEXT NOT NULL, -- share by version
    earlier     TEXT NOT NULL, -- the versions that it named before, the latest last
    description TEXT NOT NULL,
    created_us  INTEGER NOT NULL,
    updated_us  INTEGER NOT NULL,
    PRIMARY KEY (function, name)
) STRICT, WITHOUT ROWID;
