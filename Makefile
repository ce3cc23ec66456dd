PYTHON := .venv/bin/python

.PHONY: demo test check slow bench readme
demo test:  ## the README's two commands, taken from it
	bash -c "$$(bash .ci/readme-command $@)"

check: test  ## everything CI runs
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

slow:  ## full training runs held against the bars; about 15 minutes on 2 cores
	$(PYTHON) -m pytest -m long

readme: ## put the table of the last run into README.md
	$(PYTHON) -m compress.report out/easy_vqa --readme README.md

bench:  ## the figures of the last run again
	$(PYTHON) -m compress.report out/easy_vqa
