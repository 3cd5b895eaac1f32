-- What Function Compute's APIs keep beside the catalog: services, and settings that have no counterpart. Times are microseconds since 1970.

CREATE TABLE documents (
    kind       TEXT NOT NULL,
    owner      TEXT NOT NULL, -- the function; empty: the document is about none
    name       TEXT NOT NULL, -- of the service, the trigger, or the qualifier
    value      TEXT NOT NULL, -- JSON
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    PRIMARY KEY (kind, owner, name)
) STRICT, WITHOUT ROWID;
