package servers

// Belonging is for the tests that look for processes that a server left.
var Belonging = belonging
