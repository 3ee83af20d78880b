"""`python -m antiphon.engine DESCRIPTOR`: an engine process, as engine/pool.py begins it."""

from antiphon.engine.process import main

main()
