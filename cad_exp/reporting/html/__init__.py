"""`report.html`: one file that shows a run, a sweep or a study to somebody who has only a browser.

Charts are plain inline SVG that the templates draw. Two hundred lines of our own script only sort, filter and zoom.
Plotly's script alone has 4 MB, Vega with Vega-Lite and its embedder 0.8 MB, and neither draws anything without
JavaScript. Inline SVG does, and in print; it takes dark mode from the style sheet. A default run's report has 0.6 MB.

- `source`: what lies in a run's folder. `pictures`: image files as data of the page. `render`: templates to a page.
- One module a part (`asked`, `verdicts`, `metrics`, `gallery`, `layers`, `components`, `fidelity`, ...): from the files
  to what its template of the same name shows. None where the run has nothing of the kind.
- `run_page`, `runs_page`, `study_page`: whole pages. `place`: where a page may be written.

No module here imports torch, and no page loads anything: its content security policy forbids it.
"""
