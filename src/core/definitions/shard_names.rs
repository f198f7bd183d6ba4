//! Names of shards and of their triggers, as Citus makes them: the name, an underscore and the shard's number.

/// The number at the end of a name.
pub fn number_of(name: &str) -> Option<i64> {
    let (before, digits) = name.rsplit_once('_')?;
    let is_number = !before.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// Whether a trigger has this name, or is its copy on a shard.
pub fn is_named(trigger: &str, name: &str) -> bool {
    trigger == name
        || trigger.strip_prefix(name).is_some_and(|rest| {
            rest.starts_with('_') && number_of(trigger).is_some() && !rest[1..].contains('_')
        })
}

/// The id of the event that a trigger of the extension was made for, by the trigger's name.
pub fn event_of(trigger: &str) -> Option<&str> {
    let rest = trigger.strip_prefix("webhook_")?;
    let rest = ["insert_", "update_", "delete_"]
        .iter()
        .find_map(|change| rest.strip_prefix(change))
        .unwrap_or(rest);
    let id = rest.split('_').next()?;
    is_named(rest, id).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_ends_in_its_number() {
        assert_eq!(number_of("orders_102008"), Some(102_008));
        assert_eq!(number_of("a_b_7"), Some(7));
        for name in [
            "orders",
            "orders_",
            "_7",
            "orders_7a",
            "orders_99999999999999999999",
        ] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_trigger_and_its_copies_have_one_name() {
        assert!(is_named("webhook_ab12cd", "webhook_ab12cd"));
        assert!(is_named("webhook_ab12cd_102008", "webhook_ab12cd"));
        for other in [
            "webhook_ab12ce",
            "webhook_ab12cd_",
            "webhook_ab12cd_x",
            "webhook_ab12cd_1_2",
            "webhook_ab12cdx_1",
        ] {
            assert!(!is_named(other, "webhook_ab12cd"), "{other}");
        }
    }

    #[test]
    fn a_trigger_says_which_event_it_was_made_for() {
        assert_eq!(event_of("webhook_ab12cd"), Some("ab12cd"));
        assert_eq!(event_of("webhook_insert_ab12cd"), Some("ab12cd"));
        assert_eq!(event_of("webhook_update_ab12cd_102008"), Some("ab12cd"));
        assert_eq!(event_of("webhook_delete_ab12cd_102008_1"), None);
        assert_eq!(event_of("mine"), None);
    }
}
