//! What the database keeps of where it comes from.
//!
//! `webhook.def_origin` says where the definitions were made, and dumps carry it. `webhook.control`
//! says where outbox, log and positions were written, and stays out of dumps. What follows from
//! the two is decided in [`crate::core::messages::identity`].

use super::rows::{execute, first};
use crate::core::messages::identity::{provenance, Identity, Installation, Provenance, Records};
use crate::pg::identity::here;
use crate::pg::owner::as_owner;
use crate::pg::spi::{connected, with_snapshot, Query};
use crate::pg::text::Param;

/// The schema of 0.1.0 keeps nothing of the kind.
const IS_KEPT: &str = "
select true
from pg_catalog.pg_class c
where c.relnamespace = 'webhook'::pg_catalog.regnamespace
  and c.relname = 'def_origin'";

const ORIGINS: &str = "
select o.system_identifier, o.database_oid, o.identity
from webhook.def_origin o";

const HAS_DEFINITIONS: &str = "
select true
from webhook.webhook_def w
where w.dropped_at is null
limit 1";

const STATE: &str = "
select k.state_system, k.state_database, k.state_identity, k.state_server
from webhook.control k";

/// Unless there are definitions, whose origin is known, or would be made up.
const ADD_FIRST_ORIGIN: &str = "
insert into webhook.def_origin (system_identifier, database_oid, identity)
select $1, $2, $3
where not exists (select from webhook.def_origin)
  and not exists (select from webhook.webhook_def w where w.dropped_at is null)
on conflict do nothing
returning true";

const FORGET_ORIGINS: &str = "
delete from webhook.def_origin";

const ADD_ORIGIN: &str = "
insert into webhook.def_origin (system_identifier, database_oid, identity)
values ($1, $2, $3)";

const SET_STATE: &str = "
update webhook.control
set state_system = $1, state_database = $2, state_identity = $3, state_server = $4";

thread_local! {
    static IS_KEPT_QUERY: Query = const { Query::new(IS_KEPT) };
    static ORIGINS_QUERY: Query = const { Query::new(ORIGINS) };
    static HAS_DEFINITIONS_QUERY: Query = const { Query::new(HAS_DEFINITIONS) };
    static STATE_QUERY: Query = const { Query::new(STATE) };
}

/// Whether this database is the one that its definitions were made in.
pub fn current() -> Provenance {
    as_owner(for_worker)
}

/// The same for a session that may read the records itself.
pub fn for_worker() -> Provenance {
    let records = with_snapshot(|| connected(read));
    records.map_or(Provenance::Original, |records| {
        provenance(&here(), &records)
    })
}

/// Why this database is held, if it is a copy.
pub fn copy_notice() -> Option<String> {
    match current() {
        Provenance::Copy(notice) => Some(notice),
        Provenance::Original | Provenance::Upgraded => None,
    }
}

fn read() -> Option<Records> {
    if !has_rows(&IS_KEPT_QUERY) {
        return None;
    }
    let mut records = Records::default();
    ORIGINS_QUERY.with(|query| {
        query.read(&[], |row| {
            let identity = identity_of(row.i64(0), row.oid(1), row.text(2));
            records.origins.extend(identity);
        });
    });
    STATE_QUERY.with(|query| {
        query.read(&[], |row| {
            let identity = identity_of(row.i64(0), row.oid(1), row.text(2));
            records.state = identity
                .zip(row.i32(3))
                .map(|(identity, server_major)| Installation {
                    identity,
                    server_major,
                });
        });
    });
    records.has_definitions = has_rows(&HAS_DEFINITIONS_QUERY);
    Some(records)
}

fn has_rows(query: &'static std::thread::LocalKey<Query>) -> bool {
    let mut found = false;
    query.with(|query| query.read(&[], |_| found = true));
    found
}

/// SQL has no unsigned numbers: the system identifier is stored as pg_control_system() shows it.
fn identity_of(
    system: Option<i64>,
    database: Option<pgrx::pg_sys::Oid>,
    name: Option<String>,
) -> Option<Identity> {
    Some(Identity {
        system: system?.cast_unsigned(),
        database: database?.to_u32(),
        name: name?,
    })
}

fn parameters(identity: &Identity) -> [Param; 3] {
    [
        identity.system.cast_signed().into(),
        pgrx::pg_sys::Oid::from(identity.database).into(),
        identity.name.as_str().into(),
    ]
}

/// Before the first definition is stored: it is made here.
pub fn record_origin() {
    let here = here();
    as_owner(|| {
        let is_first = first(ADD_FIRST_ORIGIN, &parameters(&here.identity), |_| ()).is_some();
        if is_first {
            set_state(&here);
        }
    });
}

/// From now on the definitions count as made here.
pub fn record_move() {
    let here = here();
    as_owner(|| {
        execute(FORGET_ORIGINS, &[]);
        execute(ADD_ORIGIN, &parameters(&here.identity));
        set_state(&here);
    });
}

fn set_state(here: &Installation) {
    let [system, database, name] = parameters(&here.identity);
    execute(
        SET_STATE,
        &[system, database, name, here.server_major.into()],
    );
}
