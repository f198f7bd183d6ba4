//! What users do with their webhooks while everything runs.

use std::collections::HashMap;

use super::chaos::Chaos;
use super::hooks::{Hook, PASSING, PLANS};
use super::scene::now_s;

type Done = Result<(), postgres::Error>;

/// Seconds for which an old secret signs, too.
const OVERLAP_S: u64 = 5;

/// There may be none: messages are forgotten soon.
pub const ANY_DELIVERED: &str = "
    select m.message_id
    from webhook.messages m
    join webhook.webhooks w on w.id = m.webhook_id
    where w.name = $1 and m.status = 'delivered'
    order by random() limit 1";

/// So many that come and go are there at a time.
const MOST_PASSING: usize = 4;

/// The lock of CREATE TRIGGER keeps writers out until the end of the transaction: what they
/// write from then on, and nothing else, has a higher place.
const LAST_PLACE: &str = "select last_value from witnessed_place_seq";

impl Chaos<'_> {
    pub fn pause_webhook(&mut self) -> Done {
        let name = self.chance.pick(PLANS).name;
        self.run(&format!("select webhook.pause_webhook('{name}')"))?;
        self.paused.retain(|(other, _)| *other != name);
        let until = self.in_seconds(0, 10);
        self.paused.push((name, until));
        Ok(())
    }

    /// A message that was delivered goes to each URL again.
    pub fn redeliver(&mut self) -> Done {
        let name = self.chance.pick(PLANS).name;
        let mut session = self.session();
        let message = session.query_opt(ANY_DELIVERED, &[&name])?;
        let Some(message) = message else {
            return Ok(());
        };
        let id: uuid::Uuid = message.get(0);
        let calls: i32 = match session.query_one("select webhook.redeliver($1)", &[&id]) {
            Ok(row) => row.get(0),
            // Past webhook.log_retention, which is seconds here, since it was chosen.
            Err(error) if error.code().is_some_and(|code| code.code() == "42704") => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut hooks = self.scene.hooks();
        let hook = hooks.iter_mut().find(|hook| hook.name == name);
        hook.expect("it was made").redelivered += i64::from(calls);
        Ok(())
    }

    pub fn regenerate_secret(&mut self) -> Done {
        let name = self.chance.pick(PLANS).name;
        // Held meanwhile, so that no signature is judged before the new secret is known.
        let mut hooks = self.scene.hooks();
        self.run(&format!(
            "select webhook.regenerate_secret('{name}', overlap => '{OVERLAP_S} seconds')"
        ))?;
        let hook = hooks.iter_mut().find(|hook| hook.name == name);
        let issued = &mut hook.expect("it was made").issued;
        issued[0].until = now_s() + OVERLAP_S;
        issued.insert(0, self.scene.newest_secret(name));
        Ok(())
    }

    pub fn edit_webhook(&mut self) -> Done {
        let name = self.chance.pick(PLANS).name;
        let (most, tenant) = (self.chance.within(1..=16), self.chance.within(1..=1000));
        self.run(&format!(
            "select webhook.update_webhook('{name}', max_in_flight => {most},
                                           headers => '{{\"x-tenant\": \"{tenant}\"}}')"
        ))
    }

    /// Whether the next one is to come, and none to go.
    pub fn has_room_for_passing(&mut self) -> bool {
        let there = self.scene.hooks().iter().filter(|h| is_passing(h)).count();
        there == 0 || there < MOST_PASSING && self.chance.one_in(2)
    }

    pub fn make_passing(&mut self) -> Done {
        let mut hooks = self.scene.hooks();
        let (name, path) = (
            format!("passing {}", self.passing),
            format!("/ok/passing/{}", self.passing),
        );
        let mut session = self.session();
        let mut transaction = session.transaction()?;
        let made = transaction.query_one(
            &format!(
                "select id from webhook.create_webhook($1, array[$2], {})",
                PASSING.options
            ),
            &[&name, &self.scene.url(&PASSING, &path)],
        )?;
        let event = transaction.query_one(
            &format!(
                "select id from webhook.create_event($1, 'readings', 'table.recordInsert', {})",
                PASSING.event_options
            ),
            &[&name],
        )?;
        let after_place = transaction.query_one(LAST_PLACE, &[])?.get(0);
        transaction.commit()?;
        let made_at = session.query_one("select clock_timestamp()", &[])?.get(0);
        self.passing += 1;
        let of = ("readings".to_owned(), "Insert".to_owned());
        hooks.push(Hook {
            plan: &PASSING,
            id: made.get(0),
            paths: vec![path],
            events: HashMap::from([(event.get(0), of)]),
            after_place,
            made_at,
            is_dropped: false,
            issued: vec![self.scene.newest_secret(&name)],
            redelivered: 0,
            name,
        });
        Ok(())
    }

    /// What it has pending is not sent.
    pub fn drop_passing(&mut self) -> Done {
        let mut hooks = self.scene.hooks();
        let Some(hook) = hooks.iter_mut().find(|hook| is_passing(hook)) else {
            return Ok(());
        };
        self.run(&format!("select webhook.drop_webhook('{}')", hook.name))?;
        hook.is_dropped = true;
        Ok(())
    }
}

fn is_passing(hook: &Hook) -> bool {
    hook.plan.name == PASSING.name && !hook.is_dropped
}
