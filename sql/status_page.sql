-- A page for people.

-- PostgREST serves what a function returns as this domain with the media type that the domain is named for.
create domain webhook."text/html" as pg_catalog.text;
revoke all on type webhook."text/html" from public;

create function webhook.status_page(refresh interval default '10 seconds')
returns webhook."text/html"
language c
set search_path = pg_catalog, pg_temp
set jit = off
as 'MODULE_PATHNAME', 'status_page_wrapper';
