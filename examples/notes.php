<?php
// A guest book as small as they come: who logs in is remembered in PHP's session, what is said in a file of the home.
// Put it below a document root. POST user=NAME logs in, POST note=TEXT keeps a line; it answers in JSON.
declare(strict_types=1);

session_start();
$file = dirname(__DIR__) . '/notes.txt';

if (is_string($_POST['user'] ?? null)) {
    session_regenerate_id(true);
    $_SESSION['user'] = $_POST['user'];
}
if (is_string($_POST['note'] ?? null)) {
    if (!isset($_SESSION['user'])) {
        http_response_code(403);
        exit("log in first\n");
    }
    $line = $_SESSION['user'] . ': ' . strtr($_POST['note'], "\r\n", '  ') . "\n";
    if (file_put_contents($file, $line, FILE_APPEND | LOCK_EX) === false) {
        http_response_code(500);
        exit("cannot write\n");
    }
}

header('Content-Type: application/json');
echo json_encode([
    'node' => gethostname(),
    'uid' => posix_geteuid(),
    'user' => $_SESSION['user'] ?? null,
    'notes' => is_file($file) ? file($file, FILE_IGNORE_NEW_LINES) : [],
]), "\n";
