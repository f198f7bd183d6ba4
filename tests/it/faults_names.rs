//! Host names that are unknown, hang the resolver, or come to mean a private
//! address (fault 18).

use std::time::Duration;

use super::support::calls::{assert_within_deadline, wait_until_repeated};
use super::support::distortion::{distorted, Distortion};
use super::support::listener::SilentListener;
use super::support::watched::{
    assert_all_received, insert_items, wait_until_nothing_is_left, watch_items, watch_items_at,
};
use super::support::worker::{cluster_restarts, peak, threads, worker_of};
use super::support::{Cluster, Receiver, PATIENCE, RECOVERY};

const DEADLINE: Duration = Duration::from_secs(1);

const STUBBORN: &str = ", timeout_ms => 1000, max_attempts => 1000";

/// Names whose look-up hangs: more than a resolver with a few slots could stand.
const HANGING: usize = 20;

/// As many as `webhook.connections` allows, the look-ups of names, the main thread.
const MOST_THREADS: u64 = 64 + 64 + 1;

fn cluster_with_names(name: &str) -> (Cluster, Distortion, Receiver) {
    let builder = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.1")
        .set("webhook.retry_schedule", "200ms");
    let (cluster, distortion) = distorted(builder);
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, "/ok/healthy");
    (cluster, distortion, receiver)
}

fn watch_name(cluster: &Cluster, receiver: &Receiver, name: &str) {
    watch_name_with(cluster, receiver, name, STUBBORN);
}

fn watch_name_with(cluster: &Cluster, receiver: &Receiver, name: &str, options: &str) {
    let url = format!("http://{name}:{}/ok/{name}", receiver.port());
    watch_items_at(cluster, name, &url, options);
}

fn assert_all_at(cluster: &Cluster, receiver: &Receiver, name: &str) {
    let received = receiver.received_at(&format!("/ok/{name}"));
    assert_all_received(cluster, &received);
}

#[test]
fn a_name_that_is_unknown_is_tried_again_until_it_is_known() {
    let (cluster, distortion, receiver) = cluster_with_names("unknown");
    distortion.set_names(&[("known.test", "127.0.0.1"), ("unknown.test", "unknown")]);
    for name in ["known.test", "unknown.test"] {
        watch_name(&cluster, &receiver, name);
    }
    // This one is left to the system, which may take longer to say so than a call has time.
    watch_name(&cluster, &receiver, "receiver.invalid");
    insert_items(&cluster, 1..=20);
    let reason = "^host name unknown.test cannot be resolved: ";
    wait_until_repeated(&cluster, PATIENCE, "unknown.test", reason);
    let reason = "cannot be resolved|^timed out while resolving";
    wait_until_repeated(&cluster, PATIENCE, "receiver.invalid", reason);
    for path in ["/ok/healthy", "/ok/known.test"] {
        receiver.wait_for(PATIENCE, path, 20);
        assert_all_received(&cluster, &receiver.received_at(path));
    }
    let names = ["known.test", "unknown.test", "receiver.invalid"];
    distortion.set_names(&names.map(|name| (name, "127.0.0.1")));
    wait_until_nothing_is_left(&cluster, RECOVERY);
    for name in names {
        assert_all_at(&cluster, &receiver, name);
    }
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

#[test]
fn names_that_hang_the_resolver_hold_up_no_other_name() {
    let (cluster, distortion, receiver) = cluster_with_names("hanging");
    let hanging: Vec<String> = (0..HANGING).map(|n| format!("hanging{n}.test")).collect();
    let answers = |answer| {
        let hanging = hanging.iter().map(|name| (name.as_str(), answer));
        hanging.chain([("known.test", "127.0.0.1")]).collect()
    };
    let (hang, recover): (Vec<_>, Vec<_>) = (answers("hangs"), answers("127.0.0.1"));
    distortion.set_names(&hang);
    for name in &hanging {
        watch_name(&cluster, &receiver, name);
    }
    insert_items(&cluster, 1..=5);
    let worker = worker_of(&cluster, "postgres");
    let most_threads = peak(worker, threads, || {
        for name in &hanging {
            let reason = "^timed out while resolving the host name$";
            wait_until_repeated(&cluster, PATIENCE, name, reason);
        }
        // Nobody has asked for this one before. The others hang until they are told otherwise,
        // so that no deadline is long enough to wait for them.
        let patient = ", timeout_ms => 30000";
        watch_name_with(&cluster, &receiver, "known.test", patient);
        insert_items(&cluster, 6..=20);
        receiver.wait_for(PATIENCE, "/ok/known.test", 15);
        receiver.wait_for(PATIENCE, "/ok/healthy", 20);
    });
    let refused: i64 =
        cluster.value("select errors from webhook.webhooks where name = 'known.test'");
    assert_eq!(refused, 0, "names that hang took the time of another");
    assert!((2..=MOST_THREADS).contains(&most_threads), "{most_threads}");
    assert_all_at(&cluster, &receiver, "healthy");
    assert_within_deadline(&cluster, DEADLINE);

    distortion.set_names(&recover);
    wait_until_nothing_is_left(&cluster, RECOVERY);
    for name in &hanging {
        assert_all_at(&cluster, &receiver, name);
    }
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

#[test]
fn a_name_that_comes_to_mean_a_private_address_is_not_dialled() {
    let (cluster, distortion, receiver) = cluster_with_names("rebinding");
    // On the receiver's port, so that nothing but the address tells them apart.
    let private = SilentListener::at([127, 0, 0, 2].into(), receiver.port());
    distortion.set_names(&[("changing.test", "127.0.0.1")]);
    watch_name(&cluster, &receiver, "changing.test");
    insert_items(&cluster, 1..=20);
    receiver.wait_for(PATIENCE, "/ok/changing.test", 20);

    distortion.set_names(&[("changing.test", "127.0.0.2")]);
    let refused = "select (count(*) > 1)::text from webhook.calls
                   where webhook_name = 'changing.test' and detail ~ 'address 127.0.0.2 is not allowed'";
    let mut id = 20;
    // An answer is believed for some seconds, so the change is not seen at once.
    cluster.wait_until(PATIENCE, "calls to be refused", || {
        id += 1;
        insert_items(&cluster, id..=id);
        match cluster.value::<String>(refused).as_str() {
            "true" => Ok(()),
            seen => Err(format!("{seen} after {id} rows")),
        }
    });
    receiver.wait_for(PATIENCE, "/ok/healthy", id as u64);
    assert_all_at(&cluster, &receiver, "healthy");
    assert_eq!(private.take_connections(), 0, "it was dialled");

    distortion.set_names(&[("changing.test", "127.0.0.1")]);
    wait_until_nothing_is_left(&cluster, RECOVERY);
    assert_all_at(&cluster, &receiver, "changing.test");
    assert_eq!(private.take_connections(), 0, "it was dialled");
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}
