"""The Space's page: a table of predictions and references, and the metrics of it.

python app.py
"""

from pathlib import Path

import evaluate
from evaluate.utils import launch_gradio_widget

if __name__ == "__main__":
    launch_gradio_widget(evaluate.load(str(Path(__file__).with_name("iqa.py"))))
