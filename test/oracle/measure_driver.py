# SPDX-License-Identifier: Apache-2.0
"""Runs many sev-snp-measure cases in one process: JSON list of cases on stdin, JSON list of answers out.

A case is {"argv": [...]} for the command line, or {"id_block": {"ld", "idkey", "authorkey"}}. An answer is
{"code": 0, "stdout": "..."} or, when the tool gave up, {"code": n, "error": "..."}.
"""

import base64
import contextlib
import io
import json
import sys

from sevsnpmeasure import cli, id_block


def run_cli(argv):
    sys.argv = ["sev-snp-measure", *argv]
    try:
        return cli.main()
    except SystemExit as stopped:
        return stopped.code


def answer(case):
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            if "argv" in case:
                code = run_cli(case["argv"])
            else:
                job = case["id_block"]
                print(id_block.snp_calc_id_block(base64.b64decode(job["ld"]), job["idkey"], job["authorkey"]))
                code = 0
    except Exception as error:  # an uncaught exception is the tool's way to refuse some inputs
        return {"code": 1, "error": f"{type(error).__name__}: {error}"}
    if code != 0:
        return {"code": code, "error": err.getvalue()}
    return {"code": 0, "stdout": out.getvalue()}


json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)
