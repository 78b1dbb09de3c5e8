"""The style sheet of every page: light and dark, from a phone's width up."""

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --dim: #5c6670; --line: #d9dee3; --paper: #fdfdfc; --card: #f3f5f6; --bar: #2a7f9e; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6e9ec; --dim: #98a2ac; --line: #343b42; --paper: #14181c; --card: #1d2328; --bar: #4fb0d1; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; }
h2 { font-size: 1.4rem; margin: 1.5rem 0 .25rem; }
h3 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
summary { margin: 2.5rem 0 .5rem; cursor: pointer; }
summary h3 { display: inline; margin: 0; }
h4 { font-size: 1rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
h4 .dim { font-weight: 400; font-size: .85rem; }
p { max-width: 60rem; margin: .4rem 0; }
a { color: var(--bar); }
section + section { margin-top: 4rem; border-top: 1px solid var(--line); }
.dim, figcaption { color: var(--dim); }
.warn { border-left: 4px solid #d97706; padding-left: .75rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--dim); font-weight: 500; font-size: .9rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.best td { font-weight: 650; }
table.settings th, table.settings td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.settings td:first-child { white-space: nowrap; }
.bars { display: grid; grid-template-columns: minmax(0, max-content) minmax(4rem, 1fr) max-content; gap: .35rem .8rem;
  align-items: center; max-width: 44rem; margin: 1rem 0; }
.bar { height: .9rem; background: var(--bar); border-radius: 2px; min-width: 1px; }
.track { background: var(--card); border-radius: 2px; }
.group { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem .5rem; margin: .5rem 0 1.5rem; }
.column { display: grid; gap: .4rem; align-content: start; min-width: 0; }
figure { margin: 0; }
figcaption { font-size: .8rem; line-height: 1.3; margin-top: .15rem; min-height: 2.6em; }
img, video { display: block; width: 100%; height: auto; border-radius: 3px; background: var(--card); }
.column:only-child { max-width: 30rem; }
img.crop { image-rendering: pixelated; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--bar); outline-offset: 2px; }
svg { max-width: 100%; height: auto; font: 13px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .tick { fill: var(--dim); font-size: 11px; }
svg .rule { stroke: var(--line); } svg polyline { fill: none; stroke: var(--bar); stroke-width: 1.5; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }
@media (max-width: 34rem) {
  body { padding: 1.25rem 1rem 3rem; }
  figcaption { min-height: 3.9em; }
  table { font-size: .82rem; }
  th { font-size: .72rem; line-height: 1.3; vertical-align: bottom; }
  th, td { padding: .3rem .25rem; }
  th, td:first-child { white-space: normal; overflow-wrap: normal; }
  .bars { grid-template-columns: 1fr max-content; gap: .1rem .8rem; }
  .bars span:nth-child(3n + 1) { grid-column: 1 / -1; } }
"""
