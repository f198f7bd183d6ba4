# Everything a user or developer runs. The work is done by scripts/; each says at its top what it does.
#
# make PG_CONFIG=/path/to/pg_config <target> chooses the server (PostgreSQL 15 to 18).

SHELL := /bin/bash
export PG_CONFIG

.PHONY: help setup demo receiver docs reference test test-unit test-regress test-cluster test-matrix test-assert test-citus test-packages \
    soak fuzz lint bench all install uninstall package image dist clean

help:
	@echo 'make demo          a throw-away server and receiver: watch changes become signed POSTs'
	@echo 'make receiver      a receiver on 127.0.0.1:8080 that prints and verifies each POST (SECRET=whsec_..., PORT=8081)'
	@echo 'make install       build the release and install it into the server of PG_CONFIG'
	@echo 'make uninstall     remove it again'
	@echo 'make package       Debian packages for PostgreSQL 15 to 18 (or VERSIONS="17 18"), in target/packages'
	@echo 'make image         the image for CloudNativePG, from the package for PostgreSQL 18, in target/image'
	@echo 'make dist          the archive for PGXN, from the last commit, in target'
	@echo 'make test          all tests: unit, regress, cluster (also test-unit, test-regress, test-cluster)'
	@echo 'make test-matrix   regress and cluster tests against PostgreSQL 15 to 18 (or VERSIONS="17 18"); fetches what is not installed'
	@echo 'make test-assert   regress and cluster tests against a PostgreSQL 15 built with assertions'
	@echo 'make test-citus    clusters of Citus, with the server of PG_CONFIG, where Citus has to be installed'
	@echo 'make test-packages install, upgrade, remove the packages in clean systems (root; VERSIONS="15")'
	@echo 'make soak          random faults under load for SOAK_MINUTES (default 10)'
	@echo 'make fuzz          arbitrary input for parsers and writers for FUZZ_MINUTES (default 10)'
	@echo 'make lint          rustfmt, clippy, rustdoc, cargo-machete, cargo-deny, pgspot, promtool'
	@echo 'make docs          the documentation as a site, in target/site'
	@echo 'make reference     write docs/reference.md from the comments in the database'
	@echo 'make bench         measure against the targets'
	@echo 'make setup         install what is missing for all this'
	@echo 'make clean         remove everything that was built'

setup:
	@scripts/setup

demo: setup
	@scripts/demo

receiver: setup
	@scripts/receiver

docs:
	@scripts/setup docs
	@scripts/docs

reference: setup
	@scripts/reference

test: setup
	@scripts/test

test-unit test-regress test-cluster: test-%: setup
	@scripts/test $*

test-matrix:
	@scripts/test-matrix

test-assert:
	@scripts/test-assert

test-citus:
	@scripts/test-citus

test-packages:
	@scripts/test-packages

soak: setup
	@scripts/soak

fuzz: setup
	@scripts/fuzz

lint:
	@scripts/setup lint
	@scripts/lint

bench: setup
	@scripts/bench

all:
	@scripts/install build

install:
	@scripts/install

uninstall:
	@scripts/uninstall

package:
	@scripts/package

image:
	@scripts/image

dist:
	@scripts/dist

clean:
	@scripts/clean
