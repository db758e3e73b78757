package saga

const crashURL = "X_CRASH"

func crashChild(string) int { return 0 }
