-- Who may do what. PUBLIC may do nothing but have its changes captured, which needs no
-- privilege: a trigger function runs without one.

do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname operator(pg_catalog.=) 'webhook_admin') then
        create role webhook_admin nologin;
    end if;
    if not exists (select from pg_catalog.pg_roles where rolname operator(pg_catalog.=) 'webhook_reader') then
        create role webhook_reader nologin;
    end if;
end
$$;

revoke all on schema webhook from public;
revoke all on all tables in schema webhook from public;
revoke all on all sequences in schema webhook from public;
revoke all on all functions in schema webhook from public;

grant usage on schema webhook to webhook_admin, webhook_reader;

grant select
    on webhook.webhooks, webhook.events, webhook.messages, webhook.calls, webhook.queue, webhook.worker,
       webhook.metrics
    to webhook_admin, webhook_reader;

-- A function in a view runs with the rights of whoever reads the view.
grant execute on function webhook.worker_process(), webhook.worker_detail(), webhook.unseen_messages(), webhook.busy_messages() to webhook_reader;
grant execute on function webhook.masked_url(text) to webhook_reader;

grant execute on all functions in schema webhook to webhook_admin;
revoke execute
    on function webhook.definitions_changed(), webhook.refuse_replicated(), webhook.grant_to(text, text),
       webhook.revoke_from(text), webhook.check_grantee(text)
    from webhook_admin;
