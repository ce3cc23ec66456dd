PYTHON := .venv/bin/python

.PHONY: demo test check slow bench readme gpu
demo test:  ## the README's two commands, taken from it
	bash -c "$$(bash .ci/readme-command $@)"

check: test  ## everything CI runs
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

slow:  ## full training runs held against the bars, a run killed in every step, QAT in the gate; over half an hour
	$(PYTHON) -m pytest -n 0 -m long

gpu:  ## on a machine with an NVIDIA GPU: conformance, golden outputs, gate and benchmark of the last run, one JSON
	$(PYTHON) -m compress.gpu_proof --run out/easy_vqa --json gpu.json

readme: ## put the table of the last run into README.md
	$(PYTHON) -m compress.report out/easy_vqa --readme README.md

bench:  ## teacher and student of the last run, measured on every target that opens; start and idleness, into README.md
	$(PYTHON) benchmarks/run.py --teacher out/easy_vqa/teacher --student out/easy_vqa/student --eval out/easy_vqa/eval
	$(PYTHON) -m benchmarks.service grocery --readme README.md
