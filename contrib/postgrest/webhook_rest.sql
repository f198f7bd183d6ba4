-- The REST API of webhook.rest() behind PostgREST: run it in a database that has the extension, as its owner or a superuser.
--
--   psql -X -f contrib/postgrest/webhook_rest.sql mydb
--
-- Add webhook_rest to db-schemas of PostgREST, and let the role of the requests be a member of webhook_admin. Then
-- POST /rpc/rest answers for the method and path that the headers x-webhook-method and x-webhook-path name, with the body of the
-- request; nginx.conf beside this file sets them, so that clients see /v3/outgoingWebhooks and so on. The function runs
-- with the rights of its caller, so a client that sets the headers itself can do nothing else.

\set ON_ERROR_STOP on
begin;

create schema webhook_rest;
revoke all on schema webhook_rest from public;
grant usage on schema webhook_rest to webhook_admin;

-- One argument of type text without a name: PostgREST passes the body as it came (Content-Type: text/plain), so that a
-- body that is no JSON is answered like all other mistakes.
create function webhook_rest.rest(text)
returns json
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    headers constant json = nullif(current_setting('request.headers', true), '')::json;
    request jsonb;
    answer record;
begin
    begin
        request := nullif(btrim($1, E' \t\r\n'), '')::jsonb;
    exception when data_exception or program_limit_exceeded or statement_too_complex then
        perform set_config('response.status', '400', true);
        return json_build_object('Message', 'the body is not JSON: ' || sqlerrm);
    end;
    select r.status, r.body into strict answer
    from webhook.rest(coalesce(headers ->> 'x-webhook-method', ''), coalesce(headers ->> 'x-webhook-path', ''), request) r;
    perform set_config('response.status', answer.status::text, true);
    return answer.body;
end
$$;

revoke all on function webhook_rest.rest(text) from public;
grant execute on function webhook_rest.rest(text) to webhook_admin;

comment on schema webhook_rest is 'The REST API for webhooks and events, for PostgREST.';
comment on function webhook_rest.rest(text) is
    'Answers the request that the headers x-webhook-method and x-webhook-path describe, with webhook.rest(). Sets response.status.';

-- PostgREST reads its schemas again.
notify pgrst, 'reload schema';
commit;
