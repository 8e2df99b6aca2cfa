"""The dashboards, one per question that an operator asks first."""

from deploy.grafana.boards import fleet, model, tokenizer, vocabulary

BOARDS = (fleet.BOARD, model.BOARD, tokenizer.BOARD, vocabulary.BOARD)
