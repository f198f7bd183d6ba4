-- Types and values that nest deeper than the stack reaches.
create extension webhook_ext;
select webhook.stop_worker() is not null as stopped;
select id as webhook from webhook.create_webhook('Deep', array['https://example.com/']) \gset
\set VERBOSITY terse

-- A type of many levels, and a value of none of them. One transaction has not enough locks for all.
create domain d_0 as integer[];
do $$
begin
    for level in 1..4000 loop
        execute pg_catalog.format('create domain d_%s as d_%s[]', level, level - 1);
        if level % 500 = 0 then
            commit;
        end if;
    end loop;
end
$$;
create table nested_arrays (f d_4000);
select id as event from webhook.create_event('Deep', 'nested_arrays', 'table.recordInsert') \gset
insert into nested_arrays values ('{}'), (null);
select webhook.preview_payload(:'event') like '%"data":[{"f":[]}]%' as previewed;
select pg_catalog.count(*) from webhook.template_parameters('nested_arrays') where parameter like '%field:f%';
drop table nested_arrays;
do $$
begin
    for level in reverse 4000..0 loop
        execute pg_catalog.format('drop domain d_%s', level);
        if level % 500 = 0 then
            commit;
        end if;
    end loop;
end
$$;

begin;
create type c_0 as (n integer);
do $$
begin
    for level in 1..3000 loop
        execute pg_catalog.format('create type c_%s as (f c_%s)', level, level - 1);
    end loop;
end
$$;
create table nested_composites (f c_3000);
select id as event from webhook.create_event('Deep', 'nested_composites', 'table.recordInsert') \gset
insert into nested_composites values (null);
select webhook.preview_payload(:'event') like '%"data":[{"f":null}]%' as previewed;
rollback;

-- Values of many levels: written, or an error of the statement.
create procedure nest(first integer, last integer) language plpgsql as $$
begin
    for level in first..last loop
        execute pg_catalog.format('create domain v_%s as v_%s[]', level, level - 1);
        execute pg_catalog.format('create type w_%s as (f w_%s)', level, level - 1);
        execute pg_catalog.format('create table s_%1$s as select array[f]::v_%1$s as f, row(g)::w_%1$s as g from s_%2$s', level, level - 1);
        execute pg_catalog.format('drop table s_%s', level - 1);
        if level % 100 = 0 then
            commit;
        end if;
    end loop;
end
$$;
create domain v_0 as integer[];
create type w_0 as (n integer);
create table s_0 as select '{1}'::v_0 as f, row(1)::w_0 as g;
call nest(1, 100);
create table arrays (f v_100);
create table composites (g w_100);
select id as event from webhook.create_event('Deep', 'arrays', 'table.recordInsert') \gset
select id is not null as created from webhook.create_event('Deep', 'composites', 'table.recordInsert');
insert into arrays select f from s_100;
insert into composites select g from s_100;
select pg_catalog.length(webhook.preview_payload(:'event')) > 200 as previewed;
drop table arrays, composites;
call nest(101, 1100);
create table arrays (f v_1100);
create table composites (g w_1100);
select id as event from webhook.create_event('Deep', 'arrays', 'table.recordInsert') \gset
select id is not null as created from webhook.create_event('Deep', 'composites', 'table.recordInsert');
\set VERBOSITY sqlstate
insert into arrays select f from s_1100;
insert into composites select g from s_1100;
alter table arrays disable trigger user;
insert into arrays select f from s_1100;
select webhook.preview_payload(:'event');
\set VERBOSITY default
drop table arrays, composites, s_1100;
do $$
begin
    for level in reverse 1100..0 loop
        execute pg_catalog.format('drop domain v_%s', level);
        execute pg_catalog.format('drop type w_%s', level);
        if level % 100 = 0 then
            commit;
        end if;
    end loop;
end
$$;
drop procedure nest;
set client_min_messages = warning;
drop extension webhook_ext cascade;
