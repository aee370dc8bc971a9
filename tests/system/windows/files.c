/* What Windows' file functions say of files and folders.
 *
 *   files.exe list FOLDER        a line a name: attributes, size, created, written, name
 *   files.exe info FILE          of an open file: volume, number, links, attributes, size, created, written
 *   files.exe streams FILE       a line a stream: size, name
 *   files.exe read FILE          its bytes
 *
 * Text is UTF-8, times are in 100 ns since 1601, attributes in hexadecimal. What Windows refuses says
 * the error's number and ends with 1. Used by tests/system/test_wine.py.
 */
#define _WIN32_WINNT 0x0600
#include <windows.h>

#include <fcntl.h>
#include <io.h>
#include <stdio.h>

static int refused(void)
{
    printf("error %lu\n", GetLastError());
    return 1;
}

static unsigned long long whole(DWORD high, DWORD low)
{
    return (unsigned long long)high << 32 | low;
}

static unsigned long long ticks(FILETIME time)
{
    return whole(time.dwHighDateTime, time.dwLowDateTime);
}

static void say_name(const wchar_t *name)
{
    char text[4096];
    int bytes = WideCharToMultiByte(CP_UTF8, 0, name, -1, text, sizeof text, NULL, NULL);

    printf("%s\n", bytes ? text : "?");
}

static int list(const wchar_t *folder)
{
    WIN32_FIND_DATAW found;
    wchar_t pattern[4096];
    HANDLE search;

    swprintf(pattern, 4096, L"%ls\\*", folder);
    search = FindFirstFileW(pattern, &found);
    if (search == INVALID_HANDLE_VALUE)
        return refused();
    do {
        printf("%lx %llu %llu %llu ", found.dwFileAttributes,
               whole(found.nFileSizeHigh, found.nFileSizeLow), ticks(found.ftCreationTime),
               ticks(found.ftLastWriteTime));
        say_name(found.cFileName);
    } while (FindNextFileW(search, &found));
    FindClose(search);
    return GetLastError() == ERROR_NO_MORE_FILES ? 0 : refused();
}

static HANDLE opened(const wchar_t *path)
{
    return CreateFileW(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING,
                       FILE_FLAG_BACKUP_SEMANTICS, NULL);
}

static int info(const wchar_t *path)
{
    BY_HANDLE_FILE_INFORMATION known;
    HANDLE file = opened(path);

    if (file == INVALID_HANDLE_VALUE || !GetFileInformationByHandle(file, &known))
        return refused();
    printf("%lx %llu %lu %lx %llu %llu %llu\n", known.dwVolumeSerialNumber,
           whole(known.nFileIndexHigh, known.nFileIndexLow), known.nNumberOfLinks,
           known.dwFileAttributes, whole(known.nFileSizeHigh, known.nFileSizeLow),
           ticks(known.ftCreationTime), ticks(known.ftLastWriteTime));
    return 0;
}

static int streams(const wchar_t *path)
{
    WIN32_FIND_STREAM_DATA found;
    HANDLE search = FindFirstStreamW(path, FindStreamInfoStandard, &found, 0);

    if (search == INVALID_HANDLE_VALUE)
        return refused();
    do {
        printf("%lld ", found.StreamSize.QuadPart);
        say_name(found.cStreamName);
    } while (FindNextStreamW(search, &found));
    FindClose(search);
    return GetLastError() == ERROR_HANDLE_EOF ? 0 : refused();
}

static int read_all(const wchar_t *path)
{
    char part[1 << 16];
    DWORD count;
    HANDLE file = opened(path);

    if (file == INVALID_HANDLE_VALUE)
        return refused();
    _setmode(_fileno(stdout), _O_BINARY);
    while (ReadFile(file, part, sizeof part, &count, NULL))
        if (count == 0)
            return 0;
        else
            fwrite(part, 1, count, stdout);
    return refused();
}

int wmain(int count, wchar_t **words)
{
    static const struct {
        const wchar_t *name;
        int (*answer)(const wchar_t *path);
    } questions[] = {
        {L"list", list}, {L"info", info}, {L"streams", streams}, {L"read", read_all}};

    for (size_t n = 0; count == 3 && n < sizeof questions / sizeof *questions; n++)
        if (!wcscmp(words[1], questions[n].name))
            return questions[n].answer(words[2]);
    return 2;
}
