//! What to do when the library and the schema of a database are of different versions.

use std::cmp::Ordering;

use super::error::{Error, Kind};

/// `None` if both are of one version.
pub fn mismatch(schema: &str, library: &str) -> Option<Error> {
    let way_out = match order(schema, library) {
        _ if schema == library => return None,
        // A package was installed, and sessions load its library already.
        Ordering::Less => "run ALTER EXTENSION webhook_ext UPDATE in this database".to_owned(),
        // The other way round: what is loaded stays loaded.
        _ => format!(
            "reconnect, and restart the server if shared_preload_libraries names webhook_ext; \
             if that was done, install webhook_ext {schema}"
        ),
    };
    Some(
        Error::new(
            Kind::NotInPrerequisiteState,
            format!(
                "webhook_ext {schema} is installed in this database, but the library is {library}"
            ),
        )
        .with_hint(way_out),
    )
}

/// By numbers, so that 0.10 comes after 0.9.
fn order(one: &str, other: &str) -> Ordering {
    let numbers = |version: &str| -> Vec<u64> {
        version
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect()
    };
    numbers(one).cmp(&numbers(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(schema: &str, library: &str) -> String {
        let error = mismatch(schema, library).expect("they differ");
        error.hint.expect("an error has a hint")
    }

    #[test]
    fn one_version_is_in_order() {
        assert_eq!(mismatch("0.2.0", "0.2.0"), None);
    }

    #[test]
    fn an_older_schema_is_to_be_updated() {
        for (schema, library) in [("0.1.0", "0.2.0"), ("0.9.0", "0.10.0"), ("0.2", "0.2.1")] {
            assert!(hint(schema, library).contains("ALTER EXTENSION"));
        }
    }

    #[test]
    fn an_older_library_is_to_be_loaded_again() {
        for (schema, library) in [("0.2.0", "0.1.0"), ("0.10.0", "0.9.0"), ("0.2.1", "0.2")] {
            let said = hint(schema, library);
            assert!(said.contains("restart the server"), "{said}");
            assert!(
                said.ends_with(&format!("install webhook_ext {schema}")),
                "{said}"
            );
        }
    }
}
