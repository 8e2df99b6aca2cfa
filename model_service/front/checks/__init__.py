"""What a request asks for, checked and completed before the engine hears of it."""
