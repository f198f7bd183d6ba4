//! Whether a database is the one that its definitions were made in, or a copy of it.
//!
//! A dump, CREATE DATABASE … TEMPLATE and a base backup carry definitions and secrets, and
//! must not call the receivers of the original. A promoted standby, a crash and pg_upgrade
//! are no copies.

/// What tells one installation from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Made by initdb; a standby has that of its primary.
    pub system: u64,
    pub database: u32,
    /// The setting `webhook.identity`.
    pub name: String,
}

/// An identity, and the server version that it was seen with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    pub identity: Identity,
    pub server_major: i32,
}

/// What a database keeps of where it comes from.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Where the definitions were made. A dump carries it.
    pub origins: Vec<Identity>,
    /// Where outbox, log and positions were written. No dump carries it.
    pub state: Option<Installation>,
    pub has_definitions: bool,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance {
    Original,
    /// The original, moved here by pg_upgrade.
    Upgraded,
    /// A copy, and why it is one.
    Copy(String),
}

/// pg_upgrade carries tables and the database's OID into a cluster of a newer version that
/// has its own system identifier. A dump does not carry the state; a clone whose system
/// identifier was reset (pg_createsubscriber) has the same version.
pub fn provenance(here: &Installation, records: &Records) -> Provenance {
    let Some(foreign) = records.origins.iter().find(|o| **o != here.identity) else {
        if records.origins.is_empty() && records.has_definitions {
            return Provenance::Copy(notice(None, &here.identity));
        }
        return Provenance::Original;
    };
    let is_upgraded = records.state.as_ref().is_some_and(|state| {
        let before = &state.identity;
        records.origins.iter().all(|origin| origin == before)
            && before.database == here.identity.database
            && before.name == here.identity.name
            && state.server_major < here.server_major
    });
    if is_upgraded {
        Provenance::Upgraded
    } else {
        Provenance::Copy(notice(Some(foreign), &here.identity))
    }
}

fn notice(origin: Option<&Identity>, here: &Identity) -> String {
    let made = origin.map_or_else(
        || "it is not known where the definitions were made".to_owned(),
        |origin| format!("the definitions were made in {}", described(origin)),
    );
    format!(
        "held: copy of another database: {made}, and this is {}; nothing is captured or sent \
         until a superuser calls webhook.adopt()",
        described(here)
    )
}

fn described(identity: &Identity) -> String {
    let Identity {
        system,
        database,
        name,
    } = identity;
    format!("database {database} of system {system} with webhook.identity \"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::{provenance, Identity, Installation, Provenance, Records};

    fn identity(system: u64, database: u32, name: &str) -> Identity {
        Identity {
            system,
            database,
            name: name.to_owned(),
        }
    }

    fn installation(system: u64, database: u32, name: &str, server_major: i32) -> Installation {
        Installation {
            identity: identity(system, database, name),
            server_major,
        }
    }

    fn made_in(origins: &[Identity], state: Option<Installation>) -> Records {
        Records {
            origins: origins.to_vec(),
            state,
            has_definitions: true,
        }
    }

    fn assert_copy(here: &Installation, records: &Records) {
        let found = provenance(here, records);
        let Provenance::Copy(notice) = &found else {
            panic!("{found:?}");
        };
        assert!(
            notice.starts_with("held: copy of another database"),
            "{notice}"
        );
    }

    #[test]
    fn what_was_made_here_is_no_copy() {
        let here = installation(1, 5, "prod", 15);
        let own = [identity(1, 5, "prod")];
        for state in [None, Some(here.clone()), Some(installation(2, 6, "", 15))] {
            let records = made_in(&own, state);
            assert_eq!(provenance(&here, &records), Provenance::Original);
        }
        let empty = Records::default();
        assert_eq!(provenance(&here, &empty), Provenance::Original);
    }

    #[test]
    fn another_system_database_or_name_is_a_copy() {
        let origin = identity(1, 5, "prod");
        let state = installation(1, 5, "prod", 15);
        for here in [
            installation(1, 6, "prod", 15),
            installation(1, 5, "staging", 15),
            installation(1, 5, "", 15),
            installation(2, 5, "prod", 15),
            installation(2, 6, "prod", 17),
            installation(2, 5, "staging", 17),
        ] {
            assert_copy(
                &here,
                &made_in(std::slice::from_ref(&origin), Some(state.clone())),
            );
        }
        let unnamed = made_in(&[identity(1, 5, "")], None);
        assert_copy(&installation(1, 5, "staging", 15), &unnamed);
    }

    #[test]
    fn a_dump_that_comes_into_a_newer_server_is_a_copy_although_the_numbers_agree() {
        let here = installation(2, 5, "", 17);
        let fresh = Some(here.clone());
        assert_copy(&here, &made_in(&[identity(1, 5, "")], fresh));
        assert_copy(&here, &made_in(&[identity(1, 5, "")], None));
    }

    #[test]
    fn definitions_from_elsewhere_beside_own_ones_hold_the_database() {
        let here = installation(1, 5, "", 15);
        let both = [identity(1, 5, ""), identity(7, 5, "")];
        assert_copy(&here, &made_in(&both, Some(here.clone())));
    }

    #[test]
    fn definitions_without_an_origin_are_a_copy() {
        let here = installation(1, 5, "", 15);
        assert_copy(&here, &made_in(&[], Some(here.clone())));
    }

    #[test]
    fn pg_upgrade_is_no_copy() {
        let state = installation(1, 5, "prod", 15);
        let records = made_in(&[identity(1, 5, "prod")], Some(state));
        let here = installation(2, 5, "prod", 17);
        assert_eq!(provenance(&here, &records), Provenance::Upgraded);
    }
}
