
$headers = [];
foreach (file("headers", FILE_IGNORE_NEW_LINES) as $line) {
    [$name, $value] = explode(": ", $line, 2);
    $headers[$name] = $value;
}
try {
    receive(file_get_contents("secret"), $headers, file_get_contents("body"));
    echo "accepted\n";
} catch (Throwable $error) {
    echo "refused: {$error->getMessage()}\n";
}
