"""How a run goes: what is found, who does it, what is reported. By one process, workers or Ray."""
