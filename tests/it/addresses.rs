//! Where calls may go: private addresses and plain http only where the settings say
//! so, and a changed setting counts from the reload on.

use std::path::Path;

use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::{Cluster, Receiver, PATIENCE};

/// A cluster with the default address policy, and a webhook that may only call `url`.
fn watching(name: &str, url: &str) -> Cluster {
    let cluster = Cluster::builder(name)
        .set("webhook.retry_schedule", "500ms")
        .start();
    cluster.sql("create extension webhook_ext; create table items (id integer)");
    let options = "max_attempts => 1000";
    create_webhook(&cluster, "guarded", &[url.to_owned()], options);
    create_event(&cluster, "guarded", "items", "Insert", "");
    cluster
}

fn last_detail(cluster: &Cluster) -> String {
    let query = "select detail from webhook.calls order by called_at desc limit 1";
    cluster.value(query)
}

fn reload_with(cluster: &Cluster, name: &str, value: &str) {
    cluster.configure(name, value);
    cluster.reload();
}

/// Waits until the URL was tried again, and returns why it failed.
fn detail_of_next_try(cluster: &Cluster) -> String {
    let tried: i64 = cluster.value("select calls from webhook.webhooks");
    // The one after the next began after now.
    cluster.wait_for_text(
        PATIENCE,
        &format!(
            "select (calls >= {} )::text from webhook.webhooks",
            tried + 2
        ),
        "true",
    );
    last_detail(cluster)
}

#[test]
fn a_private_address_is_called_only_once_it_is_allowed() {
    let receiver = Receiver::start();
    let cluster = watching("private", &receiver.url("/ok"));
    cluster.sql("insert into items values (1)");
    wait_idle(&cluster);
    let detail = last_detail(&cluster);
    assert!(detail.contains("127.0.0.1"), "{detail}");
    assert!(detail.contains("webhook.allowed_networks"), "{detail}");
    assert_eq!(
        cluster.psql(
            "select status, http_code is null, http_response is null from webhook.calls limit 1"
        ),
        "Failure|t|t\n"
    );

    reload_with(
        &cluster,
        "webhook.allowed_networks",
        "127.0.0.2, 10.0.0.0/8",
    );
    let detail = detail_of_next_try(&cluster);
    assert!(detail.contains("127.0.0.1"), "{detail}");
    assert_eq!(receiver.received().len(), 0, "nothing was sent");

    reload_with(&cluster, "webhook.allowed_networks", "127.0.0.0/8");
    receiver.wait_for(PATIENCE, "/ok", 1);
    wait_idle(&cluster);
    reload_with(&cluster, "webhook.allowed_networks", "");
    // One message at a time until the worker has heard of it.
    let refused = "select count(*) > $1 from webhook.calls where status = 'Failure'";
    let before: i64 = cluster.value("select count(*) from webhook.calls where status = 'Failure'");
    let (mut session, mut rows) = (cluster.connect("postgres"), 1);
    cluster.wait_until(PATIENCE, "a call to be refused", || {
        rows += 1;
        cluster.sql(&format!("insert into items values ({rows})"));
        wait_idle(&cluster);
        match session.query_one(refused, &[&before]).unwrap().get(0) {
            true => Ok(()),
            false => Err(format!("{rows} rows were sent")),
        }
    });
    // All but the last had been sent until then.
    let sent = receiver.received().len();
    assert_eq!(sent, rows - 1, "what was refused was not sent");
    cluster.sql("insert into items values (1000)");
    let detail = detail_of_next_try(&cluster);
    assert!(detail.contains("127.0.0.1"), "{detail}");
    assert_eq!(
        receiver.received().len(),
        sent,
        "a kept connection is not used either"
    );
}

#[test]
fn other_spellings_of_a_private_address_and_names_of_one_are_refused_too() {
    let receiver = Receiver::start();
    let port = receiver.port();
    let cluster = watching("spellings", &receiver.url("/ok"));
    let hosts = [
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "127.1.2.3",
        // with the dot that ends an absolute name
        "127.0.0.1.",
        // as IDNA reads them
        "１２７。０．０｡１",
        "ⓛocalhost",
        "%6c%6fcalhost",
    ];
    let urls: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(n, host)| format!("http://{host}:{port}/ok/{n}"))
        .collect();
    create_webhook(&cluster, "spelled", &urls, "max_attempts => 1");
    create_event(&cluster, "spelled", "items", "Insert", "");
    cluster.sql("insert into items values (1)");
    wait_idle(&cluster);
    let refused = cluster.psql(
        "select count(*) from webhook.calls
         where webhook_name = 'spelled' and status = 'Failure' and detail ~ 'allowed_networks'",
    );
    assert_eq!(
        refused,
        format!("{}\n", hosts.len()),
        "{}",
        cluster.psql("select outgoing_url, detail from webhook.calls")
    );
    assert_eq!(receiver.received().len(), 0);
}

/// Names that this machine itself gives a loopback address.
fn local_names() -> Vec<String> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let mut names = vec!["localhost".to_owned()];
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap().split_whitespace();
        if words
            .next()
            .is_some_and(|ip| ip.starts_with("127.") || ip == "::1")
        {
            names.extend(words.map(str::to_owned));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Whether a resolver knows a name in this spelling is its own affair: nothing is called.
#[test]
fn no_spelling_of_a_local_name_is_called() {
    let receiver = Receiver::start();
    let port = receiver.port();
    let cluster = watching("local_names", &receiver.url("/ok"));
    let spellings = local_names().into_iter().flat_map(|name| {
        [
            name.to_uppercase(),
            format!("{name}."),
            format!("{name}%2e"),
            // an ideographic full stop
            format!("{name}\u{3002}"),
            format!("{name}.localdomain"),
            format!("sub.{name}"),
            name,
        ]
    });
    let urls: Vec<String> = spellings
        .enumerate()
        .map(|(n, host)| format!("http://{host}:{port}/ok/{n}"))
        .collect();
    create_webhook(&cluster, "spelled", &urls, "max_attempts => 1");
    create_event(&cluster, "spelled", "items", "Insert", "");
    cluster.sql("insert into items values (1)");
    wait_idle(&cluster);
    let refused: i64 = cluster.value(
        "select count(*) from webhook.calls
         where webhook_name = 'spelled' and status = 'Failure' and http_code is null
           and detail ~ 'allowed_networks|cannot be resolved|timed out while resolving'",
    );
    let calls = cluster.psql("select outgoing_url, detail from webhook.calls");
    assert_eq!(refused, urls.len() as i64, "{calls}");
    assert!(calls.contains("/localhost.:"), "{calls}");
    assert_eq!(receiver.received().len(), 0);
}

/// The refusal comes before anything is dialled, so the public address is never called.
#[test]
fn plain_http_to_a_public_address_is_refused_unless_the_network_is_allowed() {
    let cluster = watching("plain_http", "http://8.8.8.8:1/");
    cluster.sql("insert into items values (1)");
    wait_idle(&cluster);
    let detail = last_detail(&cluster);
    assert!(detail.contains("webhook.require_https"), "{detail}");
}

#[test]
fn this_servers_own_port_is_never_called() {
    let receiver = Receiver::start();
    let cluster = watching("own_port", &receiver.url("/ok"));
    reload_with(&cluster, "webhook.allowed_networks", "127.0.0.0/8, ::1");
    let own = format!("http://127.0.0.1:{}/", cluster.port());
    create_webhook(&cluster, "own", &[own], "");
    create_event(&cluster, "own", "items", "Insert", "");
    cluster.sql("insert into items values (1)");
    wait_idle(&cluster);
    let detail: String =
        cluster.value("select detail from webhook.calls where webhook_name = 'own' limit 1");
    assert!(detail.contains("is this PostgreSQL server"), "{detail}");
    receiver.wait_for(PATIENCE, "/ok", 1);
}

/// As curl reads them; nobody listens there.
fn with_proxies(_: &Path) -> Vec<(String, String)> {
    let names = [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ];
    names
        .map(|name| (name.to_owned(), "http://127.0.0.1:1".to_owned()))
        .to_vec()
}

#[test]
fn a_proxy_in_the_servers_environment_is_not_used() {
    let receiver = Receiver::start();
    let cluster = Cluster::builder("proxy")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .environment(with_proxies)
        .start();
    cluster.sql("create extension webhook_ext; create table items (id integer)");
    create_webhook(&cluster, "direct", &[receiver.url("/ok")], "");
    create_event(&cluster, "direct", "items", "Insert", "");
    cluster.sql("insert into items values (1)");
    receiver.wait_for(PATIENCE, "/ok", 1);
    wait_idle(&cluster);
    let errors: i64 = cluster.value("select errors from webhook.webhooks");
    assert_eq!(
        errors,
        0,
        "{}",
        cluster.psql("select detail from webhook.calls")
    );
}
